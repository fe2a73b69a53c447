#!/bin/sh
# The demo's certificates: a federation, its server, an operator, and the sites that are named. Each party gets
# the folder that would be handed to it. Nothing is overwritten: OUT must not be there.
#
#   certs/demo.sh OUT FEDERATION SITE...
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 OUT FEDERATION SITE..." >&2
    exit 2
fi
sheaf=${SHEAF:-$(dirname "$0")/../target/debug/sheaf}
out=$1 federation=$2
shift 2

"$sheaf" pki init --federation "$federation" --out "$out/authority"
issue() { "$sheaf" pki issue "$1" "$2" --pki "$out/authority" --out "$out/$2"; }
issue server main
issue operator demo
for site in "$@"; do
    issue site "$site"
done
