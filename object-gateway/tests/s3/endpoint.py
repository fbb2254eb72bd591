"""What both end-to-end scripts share: arguments, checks, one line per test.

Deliberately no test framework: the script is run by the root package's test through the real binary, and its output is what a person reads.
"""

import argparse
import os
import sys
import time
import traceback


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    env = os.environ.get
    parser.add_argument("--endpoint", default=env("CAIRN_S3_ENDPOINT"), help="http://host:port")
    parser.add_argument("--access-key", default=env("CAIRN_ACCESS_KEY_ID"))
    parser.add_argument("--secret-key", default=env("CAIRN_SECRET_ACCESS_KEY"))
    parser.add_argument("--region", default=env("CAIRN_S3_REGION", "us-east-1"))
    parser.add_argument("--only", default="", help="run only the tests whose name holds this")
    arguments = parser.parse_args()
    if not (arguments.endpoint and arguments.access_key and arguments.secret_key):
        parser.error("--endpoint, --access-key and --secret-key are needed, or CAIRN_S3_ENDPOINT, CAIRN_ACCESS_KEY_ID, CAIRN_SECRET_ACCESS_KEY")
    return arguments


def equal(found, wanted, what=""):
    if found != wanted:
        raise AssertionError(f"{what}: is {shown(found)}, should be {shown(wanted)}")


def shown(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def run(tests, only):
    """Runs all, tells each, exits non-zero if one failed."""
    failed = []
    for test in tests:
        name = test.__name__
        if only not in name:
            continue
        start = time.monotonic()
        try:
            test()
        except Exception as error:
            failed.append(name)
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc()
        else:
            print(f"ok   {name} ({time.monotonic() - start:.2f} s)", flush=True)
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)
