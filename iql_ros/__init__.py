"""What runs on the robot: contract, sampler, controller, bundle. Open `contract.py` first."""

__version__ = "0.1.0"
