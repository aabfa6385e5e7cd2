#!/usr/bin/env bash
# The nodes' tests on ROS 2 Jazzy, from PyPI, in an environment of its own (600 MB):
#   bash tests/ros/jazzy.sh [FOLDER] [pytest's arguments]
# Each file in a process of its own; a file whose process crashes has failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv/jazzy}
[ $# -gt 0 ] && shift
# What rclpy's wheels leave in the environment of another venv leads to its libraries.
unset LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
if [ ! -e "$folder/.installed" ]; then
    "${PYTHON:-python3}" -m venv "$folder"
    messages=()
    for package in diagnostic geometry nav sensor std trajectory; do
        messages+=("ros-jazzy-$package-msgs==5.3.6")
    done
    "$folder/bin/python" -m pip install --quiet 'ros-jazzy-rclpy[fastrtps]==7.1.6' \
        "${messages[@]}" ros-jazzy-{std-srvs,rosgraph-msgs,lifecycle-msgs,rcl-interfaces} \
        ros-jazzy-ament-index-python numpy pydantic pyyaml 'rosbags>=0.11' typer rich \
        cryptography onnxruntime onnx h5py isal lz4 numexpr zstandard mujoco pytest hypothesis
    touch "$folder/.installed"
fi
export AMENT_PREFIX_PATH PYTHONPATH=$PWD
AMENT_PREFIX_PATH=$(realpath "$folder")
failed=()
for file in tests/ros/test_*.py; do
    echo "$file"
    "$folder/bin/python" -m pytest -q "$file" "$@" || { [ $? -eq 5 ] || failed+=("$file"); }
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
echo "all of tests/ros passed or were skipped"
