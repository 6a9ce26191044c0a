"""Requests that schemathesis makes up from a control plane's /openapi.json, good ones and bad ones.

No answer may be a 5xx or have a status that the document does not list for its operation. Run by
tests/tests/clients.rs. By hand, with an entity of each kind called "one" and with the id $ID:

    KONG_ADMIN_URL=http://127.0.0.1:8001 ID=... python tests/clients/openapi_requests.py

$SLUICE_TEST_SEED is another seed, $SLUICE_TEST_EXAMPLES another number of requests per operation.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

URL = os.environ["KONG_ADMIN_URL"]
ID = os.environ["ID"]
SEED = os.environ.get("SLUICE_TEST_SEED", "20")
EXAMPLES = int(os.environ.get("SLUICE_TEST_EXAMPLES", "4"))
# Of one turn; a busy machine needs some twenty seconds for one request per operation.
TIME_SECONDS_MAX = 120 + 60 * EXAMPLES
# Of all turns. Fewer: most operations were left out.
REQUESTS_MIN = 250 * EXAMPLES
# Streams, which never end, and what waits longer than this does.
ENDLESS = ["/log/events", "/log/watch", "/nodes/wait"]
# HEAD and OPTIONS are the same for every path, and have tests of their own.
# What DELETE removes would be missed by everybody else.
TURNS = [["POST", "PUT", "PATCH", "GET"], ["DELETE"]]
# How often a name in a path is one that is there.
HIT = 0.7


def variables():
    """The names of what is filled into paths."""
    with urllib.request.urlopen(f"{URL}/openapi.json", timeout=60) as answer:
        document = json.load(answer)
    segments = {segment for path in document["paths"] for segment in path.split("/")}
    return sorted(segment[1:-1] for segment in segments if segment.startswith("{"))


def config():
    """A configuration that fills in what is there, mostly."""
    lines = ["[dictionaries.known]", f'values = ["one", "{ID}"]', "[parameters]"]
    for name in variables():
        lines.append(f'"path.{name}" = {{ dictionary = "known", probability = {HIT} }}')
    return "\n".join(lines) + "\n"


def run(config_file, methods):
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config_file), "run"]
    command += [f"{URL}/openapi.json", "--phases", "fuzzing", "--mode", "all", "--seed", SEED]
    command += ["--max-examples", str(EXAMPLES), "--generation-database", "none"]
    command += ["--checks", "not_a_server_error,status_code_conformance"]
    command += ["--continue-on-failure", "--no-shrink", "--warnings", "off", "--no-color"]
    command += ["--request-timeout", "30"]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    for method in methods:
        command += ["--include-method", method]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIME_SECONDS_MAX)
    print(done.stdout, flush=True)
    made = re.search(r"^ +(\d+) generated", done.stdout, re.MULTILINE)
    return done.returncode == 0, int(made.group(1)) if made else 0


def main():
    print(f"seed {SEED}, {EXAMPLES} requests per operation", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        config_file = pathlib.Path(directory) / "schemathesis.toml"
        config_file.write_text(config())
        results = [run(config_file, methods) for methods in TURNS]
    made = sum(made for _, made in results)
    print(f"{made} requests, at least {REQUESTS_MIN} wanted")
    return 0 if all(good for good, _ in results) and made >= REQUESTS_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
