#!/usr/bin/env bash
# What we write opens in lerobot 0.4.4 and trains its ACT policy, and what lerobot writes opens here. Minutes on the first call.
#
# lerobot cannot live beside our pins (it wants an older torch, av, huggingface-hub and setuptools), so it has .venv-lerobot/.
# Its own bounds forbid this torch, with which it works: peer.py has the one declaration that it needs.
# torchcodec, with which lerobot decodes, needs the FFmpeg of the system (Debian: apt-get install ffmpeg).
set -euo pipefail
cd "$(dirname "$0")/.."
OURS=.venv/bin/python
PEER=.venv-lerobot

if [ ! -f "$PEER/.installed" ]; then
  echo "making $PEER/ (a minute or two, 1.7 GB)"
  test -x "$PEER/bin/python" || "${PYTHON:-python3}" -m venv "$PEER"
  pip() { "$PEER/bin/pip" install --disable-pip-version-check --no-compile -q "$@"; }
  pip torch==2.13.0
  pip --no-deps lerobot==0.4.4 torchvision==0.25.0 torchcodec==0.13.0
  pip torch==2.13.0 "datasets>=4,<5" "av>=15,<16" einops jsonlines "huggingface-hub<0.36" "packaging<26" gymnasium "deepdiff<9" \
    imageio termcolor draccus==0.10.0 "opencv-python-headless<4.13" pandas pyarrow accelerate "diffusers<0.36" "setuptools<81" pyserial
  touch "$PEER/.installed"
fi
command -v ffmpeg > /dev/null || { echo "ffmpeg is missing; torchcodec needs it (Debian: apt-get install ffmpeg)" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RETRODICT_CACHE="$work/cache" HF_HOME="$work/huggingface" OMP_NUM_THREADS=1 SVT_LOG=1 \
  HF_DATASETS_DISABLE_PROGRESS_BARS=1
$OURS interop/ours_write.py "$work"
$PEER/bin/python interop/peer_read.py "$work"
$PEER/bin/python interop/peer_write.py "$work"
$OURS interop/ours_read.py "$work"
echo "lerobot: all holds, both ways"
