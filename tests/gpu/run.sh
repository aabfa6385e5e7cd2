#!/bin/sh
# The GPU tests on a machine that has Python, a driver, and a folder of wheels; no network.
#
#   tests/gpu/run.sh --fetch WHEELS    on a machine with network: fills the folder
#   tests/gpu/run.sh WHEELS [pytest arguments]    on the GPU machine
#
# Both machines need the same Python version and processor. CUDA=12 (the default) or CUDA=13
# chooses the packages by what nvidia-smi shows. PYTHON=python3.10 names the interpreter, and
# TENSORRT='tensorrt==8.6.0 nvidia-cudnn-cu12==8.*' takes another TensorRT than the newest, here
# that of JetPack 6.0, which is for Python 3.10 and CUDA 12. IQL_ROS_GPU_BUNDLES=a:b names
# bundles of your own to build and time besides. What is measured is printed at the end.
set -eu

cuda=${CUDA:-12}
needs="cryptography numpy onnx onnxruntime pydantic>=2 pytest pyyaml rich rosbags>=0.11 typer typing-extensions"
python=${PYTHON:-python3}
gpu="cuda-bindings==$cuda.* ${TENSORRT:-tensorrt-cu$cuda}"
site=""
# On a Jetson TensorRT lies in the system's packages; elsewhere they may not interfere.
if [ -e /etc/nv_tegra_release ]; then
    gpu="cuda-bindings==$cuda.*"
    site=--system-site-packages
fi
root=$(cd "$(dirname "$0")/../.." && pwd)

if [ "${1:-}" = --fetch ]; then
    mkdir -p "$2"
    # pip wheel, not download: TensorRT's own package is a stub that fetches its libraries.
    # shellcheck disable=SC2086
    $python -m pip wheel --wheel-dir "$2" $needs $gpu --extra-index-url https://pypi.nvidia.com
    exit
fi

[ -d "${1:-}" ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
wheels=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# shellcheck disable=SC2086
$python -m venv $site "$work/venv"
# shellcheck disable=SC2086
"$work/venv/bin/pip" install --quiet --no-index --find-links "$wheels" $needs
for one in $gpu; do
    "$work/venv/bin/pip" install --quiet --no-index --find-links "$wheels" "$one"
done

cd "$root"
export IQL_ROS_GPU_REQUIRED=1 # what is missing is an error here, no reason to skip
export IQL_ROS_GPU_REPORT="${IQL_ROS_GPU_REPORT:-$work/report.jsonl}"
status=0
"$work/venv/bin/python" -m pytest tests/gpu/test_tensorrt.py "$@" || status=$?
[ ! -s "$IQL_ROS_GPU_REPORT" ] || cat "$IQL_ROS_GPU_REPORT"
exit $status
