"""A run of Flower's FedAvg in a deployment: a SuperLink and SuperNodes over TLS, a process each.

    flower.py MEGABYTES CLIENTS ROUNDS FOLDER [secure] [settled]

Says what bench/src/round/peer.rs reads: which processes are the server, how long it took until a client was asked, when a
round has ended, and that the model is what the clients must have made of it (the app looks at it after every round).
"""

import datetime
import ipaddress
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

megabytes, clients, rounds = (int(argument) for argument in sys.argv[1:4])
folder = pathlib.Path(sys.argv[4]).resolve()
programs = pathlib.Path(sys.executable).parent
environment = {
    **os.environ,
    "PATH": f"{programs}:{os.environ['PATH']}",
    "HOME": str(folder),
    "FLWR_HOME": str(folder / "flwr"),
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
started = []
# Until all SuperNodes are connected, eight of which take ten seconds on two cores.
SETTLE = 30


def say(what):
    print(json.dumps(what), flush=True)


def start(program, *arguments):
    command = [str(programs / program), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr, stderr=sys.stderr)
    started.append(process)
    return process


def certificates():
    """An authority's certificate, and a server's for this machine."""
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    for name, key in keys.items():
        subject = issuer if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .sign(keys["ca"], hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(pem)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the SuperLink does not listen")


def main():
    certificates()
    began = time.time()
    port = free_port()
    tls = [f"--ssl-certfile={folder}/server.crt", f"--ssl-keyfile={folder}/server.key", f"--ssl-ca-certfile={folder}/ca.crt"]
    link = start("flower-superlink", *tls, f"--port={port}", "--disable-runtime-dependency-installation")
    wait_for_port(port)
    for _ in range(clients):
        node = [f"--root-certificates={folder}/ca.crt", f"--superlink=127.0.0.1:{port}", f"--port={free_port()}"]
        start("flower-supernode", *node)
    say({"server": [link.pid]})
    (folder / "flwr").mkdir(exist_ok=True)
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{folder}/ca.crt"\n'
    )
    app = folder / "app"
    shutil.copytree(pathlib.Path(__file__).with_name("flower_app"), app)
    if "secure" in sys.argv[5:]:
        project = app / "pyproject.toml"
        project.write_text(project.read_text().replace("plus_one:", "secure:"))
    ended = folder / "ended"
    asked = folder / "ended.asked"
    if "settled" in sys.argv[5:]:
        time.sleep(SETTLE)
    submitted = time.time()
    config = f"megabytes={megabytes} clients={clients} rounds={rounds} ended='{ended}'"
    submit = start("flwr", "run", app, "bench", "--run-config", config)
    said, said_asked = 0, False
    while said < rounds:
        if asked.exists() and not said_asked:
            at = asked.stat().st_mtime
            say({"asked": {"nothing": at - began, "submit": at - submitted}})
            said_asked = True
        lines = ended.read_text().splitlines() if ended.exists() else []
        for number in range(said + 1, len(lines)):
            say({"round": number})
            said = number
        if submit.poll():
            sys.exit("flwr run failed")
        if link.poll() is not None:
            sys.exit("the SuperLink ended")
        time.sleep(0.02)
    say("done")


try:
    main()
finally:
    for process in reversed(started):
        process.terminate()
