"""The operators of the cart-pole: each can swing up and balance, none does so for long."""

from __future__ import annotations

import numpy as np

from sim.operators.working import Array, Crew, Fields, Move, Operator, Shift
from sim.world import World

# Of sim/models/cartpole.xml: the pole's inertia about its pivot, kg m^2, and its weight's moment.
INERTIA = 0.00788 + 0.230 * 0.3302**2
MOMENT = 0.230 * 9.81 * 0.3302  # N m
CART_FRICTION = 5.4  # N s/m

# A linear-quadratic regulator of the linearised model at 50 Hz, for states x, angle, dx, dangle
# weighted 5, 10, 0.1, 0.1 and force 0.02.
BALANCE = np.array([-13.8, -74.3, -19.4, -14.7])
CATCH_RAD = 0.5
EXCESS_J = 0.1  # a little more than upright, for what friction takes on the way


def swing(pump: float, share: float = 1.0) -> Move:
    """Swings up with a force of about `pump` N on the pole's behalf, then balances.

    Energy control (Astrom and Furuta, 2000): the cart accelerates so that the pole's energy tends
    to what it has upright; near there the regulator takes over.

    Args:
        pump: largest force that feeds the pole, N.
        share: of the force that would be right.
    """

    def move(fields: Fields) -> Array:
        x, dx, speed = (float(fields[name][0]) for name in ("x", "dx", "dangle"))
        sine, cosine = fields["tip"]
        angle = np.arctan2(sine, cosine)
        if abs(angle) < CATCH_RAD and abs(BALANCE[1] * angle + BALANCE[3] * speed) < 30:
            force = -BALANCE @ np.array([x, angle, dx, speed])
        else:
            energy = 0.5 * INERTIA * speed**2 + MOMENT * (cosine - 1.0)
            feed = 30.0 * (energy - EXCESS_J) * np.tanh(speed * cosine)
            force = 1.3 * np.clip(feed, -pump, pump) + (CART_FRICTION - 2.0) * dx - 10.0 * x
        return np.array([share * force])

    return move


def centre(stiffness: float) -> Move:
    """Brings the cart to the middle, whatever the pole does."""
    return lambda fields: -stiffness * (fields["x"] + 0.3 * fields["dx"])


def push(force: float) -> Move:
    """Pushes steadily."""
    return lambda _: np.array([force])


CREW = Crew(
    operators={
        "timid": Operator(0.25, {"work": 0.75, "weak": 0.2, "centre": 0.05}, 0.03),
        "absent": Operator(0.25, {"work": 0.8, "let_go": 0.2}, 0.03),
        "reversed": Operator(0.25, {"work": 0.85, "weak": 0.1, "reverse": 0.05}, 0.03),
        "shaky": Operator(0.25, {"work": 0.75, "weak": 0.15, "push": 0.1}, 0.1),
    },
    intents={
        "work": lambda rng: swing(rng.uniform(2.8, 3.8)),
        "weak": lambda rng: swing(rng.uniform(1.5, 3.3), rng.uniform(0.2, 0.7)),
        "centre": lambda rng: centre(rng.uniform(5.0, 25.0)),
        "let_go": lambda rng: push(0.0),
        "reverse": lambda rng: swing(2.5, rng.uniform(-1.0, -0.3)),
        "push": lambda rng: push(rng.uniform(-5.0, 5.0)),
    },
    stretch=(2, 10),  # 0.04 to 0.2 s
)


def on_duty(rng: np.random.Generator, world: World) -> Shift:
    """The operator of one episode."""
    return Shift(CREW, rng, world)
