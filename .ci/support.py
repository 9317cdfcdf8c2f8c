"""What the tiers in Python share: their failure, the packages that they need, and a question to a wallet."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request


class Failed(Exception):
    """What went wrong, for a person."""


def install(packages):
    """The packages of the tools that are missing, where they may be installed; by tool."""
    missing = sorted({package for tool, package in packages.items() if shutil.which(tool) is None})
    if not missing:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise Failed(f"{' and '.join(missing)} missing; install them and run this again")
    # Nothing of them is to be started by the packages.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *missing], check=True, env=environment)


def get(port, path, token=None, body=None, key=None):
    """Status and body of a reply."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers.update({"Authorization": f"Bearer {token}"} if token else {})
    headers.update({"Idempotency-Key": key} if key else {})
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
