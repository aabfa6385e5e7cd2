"""The machine is not quite as it was modelled: factors on a compiled model, drawn by episode."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.scenarios import Physics

_CHANGED = (
    *("body_mass", "body_inertia", "geom_friction", "dof_frictionloss", "dof_damping"),
    *("actuator_gainprm", "actuator_biasprm", "actuator_forcerange"),
)


class Machine:
    """Remembers a model as it was compiled, and varies it."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Keeps a copy of all that `vary` changes."""
        self._model, self._data = model, data
        self._as_compiled = {name: getattr(model, name).copy() for name in _CHANGED}

    def vary(self, physics: Physics, rng: np.random.Generator) -> None:
        """Draws a machine: each body, joint and motor has a factor of its own.

        The state is lost: reset the world afterwards.
        """
        if physics == Physics():
            return
        model, first = self._model, self._as_compiled

        def factors(between: tuple[float, float], count: int) -> np.ndarray:
            return rng.uniform(*between, count)

        mass = factors(physics.mass, model.nbody)
        model.body_mass[:] = first["body_mass"] * mass
        model.body_inertia[:] = first["body_inertia"] * mass[:, None]
        # One for all contacts: of two geoms that touch, the greater friction counts.
        model.geom_friction[:] = first["geom_friction"] * factors(physics.friction, 1)
        model.dof_frictionloss[:] = first["dof_frictionloss"] * factors(physics.friction, model.nv)
        model.dof_damping[:] = first["dof_damping"] * factors(physics.damping, model.nv)
        strength = factors(physics.strength, model.nu)[:, None]
        for name in ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange"):
            getattr(model, name)[:] = first[name] * strength
        mujoco.mj_setConst(model, self._data)
