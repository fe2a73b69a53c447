#!/bin/sh
# Who may depend on whom (ARCHITECTURE.md), checked against what cargo resolves: a server that links libtorch,
# or a protocol that opens files, would otherwise arrive unseen through somebody else's dependency.
set -eu
cd "$(dirname "$0")/.."
failed=0

# refuse SENTENCE
refuse() {
    echo "error: $1" >&2
    failed=1
}

# keep_out CRATE EDGES FORBIDDEN REASON: no crate named in FORBIDDEN may be among CRATE's dependencies.
keep_out() {
    tree=$(cargo tree --quiet --package "$1" --edges "$2" --prefix none --format '{lib}')
    for name in $3; do
        if echo "$tree" | grep -qx "$name"; then
            refuse "$1 depends on $name, but $4 (see: cargo tree -p $1 -e $2 -i $(echo "$name" | tr _ -))."
        fi
    done
}

keep_out sheaf-server normal "tch torch_sys" "the server never links libtorch"
keep_out sheaf-common normal "tokio quinn quinn_proto tch torch_sys clap" "the protocol is pure: no network, tensors or command line"
keep_out sheaf-server all "sheaf_client" "server and client meet only in sheaf-common and on the wire"
keep_out sheaf-client all "sheaf_server" "server and client meet only in sheaf-common and on the wire"

# The wire format can be replaced, or reviewed, in one file.
for file in $(grep -rlw bincode --include='*.rs' --exclude-dir=target . | grep -vx './common/src/wire.rs'); do
    refuse "$file names bincode, but only common/src/wire.rs may: go through its functions."
done

exit "$failed"
