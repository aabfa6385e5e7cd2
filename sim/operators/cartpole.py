"""The operators of the cart-pole: each can swing up and balance, none does so for long.

The shy half of all their work counts most: they swing up well, but near the top they hardly dare
to push. An imitator of the average does not hold the pole; a learner that weighs each move by what
came of it does.
"""

from __future__ import annotations

import numpy as np

from sim.operators.working import Array, Crew, Fields, Move, Operator, Shift
from sim.world import World

# Of sim/models/cartpole.xml: the pole's inertia about its pivot, kg m^2, and its weight's moment.
INERTIA = 0.00788 + 0.230 * 0.3302**2
MOMENT = 0.230 * 9.81 * 0.3302  # N m
CART_FRICTION = 5.4  # N s/m

# A linear-quadratic regulator of the linearised model at 25 Hz, for states x, angle, dx, dangle
# weighted 5, 10, 0.1, 0.1 and force 0.1.
BALANCE = np.array([-5.6, -54.1, -13.5, -10.8])
CATCH_RAD, CATCH_WIDTH_RAD = 0.45, 0.1
EXCESS_J = 0.1  # a little more than upright, for what friction takes on the way
ROOM_M = (0.5, 0.3)  # from there on, and over so much, no force towards the nearer buffer


def swing(pump: float, *, grip: float = 1.0, excess: float = EXCESS_J) -> Move:
    """Swings up with a force of about `pump` N on the pole's behalf, then balances.

    Energy control (Astrom and Furuta, 2000): the cart accelerates so that the pole's energy tends
    to what it has upright; near there the regulator takes over.

    Args:
        pump: largest force that feeds the pole, N.
        grip: share of the force that balancing would take.
        excess: energy above that of standing upright, to which it feeds, J.
    """

    def move(fields: Fields) -> Array:
        x, dx, speed = (float(fields[name][0]) for name in ("x", "dx", "dangle"))
        sine, cosine = fields["tip"]
        angle = np.arctan2(sine, cosine)
        balancing = np.clip(-BALANCE @ (x, angle, dx, speed), -12.0, 12.0)
        energy = 0.5 * INERTIA * speed**2 + MOMENT * (cosine - 1.0)
        feed = pump * np.tanh(2.0 * (energy - excess) * speed * cosine)
        feed *= 1.0 - np.clip((x * np.sign(feed) - ROOM_M[0]) / ROOM_M[1], 0.0, 1.0)
        swinging = 1.3 * feed + (CART_FRICTION - 2.0) * dx - 4.0 * x
        caught = 1.0 / (1.0 + np.exp((abs(angle) - CATCH_RAD) / CATCH_WIDTH_RAD))
        return np.array([caught * grip * balancing + (1.0 - caught) * swinging])

    return move


def push(force: float) -> Move:
    """Pushes steadily."""
    return lambda _: np.array([force])


CREW = Crew(
    operators={
        "shy": Operator(0.25, {"work": 0.45, "shy": 0.55}, 0.03),
        "absent": Operator(0.25, {"work": 0.5, "shy": 0.3, "let_go": 0.2}, 0.03),
        "eager": Operator(0.25, {"work": 0.4, "shy": 0.3, "too_much": 0.3}, 0.03),
        "clumsy": Operator(0.25, {"work": 0.5, "shy": 0.3, "reverse": 0.1, "push": 0.1}, 0.08),
    },
    intents={
        "work": lambda rng: swing(rng.uniform(3.5, 5.5)),
        "shy": lambda rng: swing(rng.uniform(3.5, 5.5), grip=rng.uniform(-0.3, 0.2)),
        "too_much": lambda rng: swing(rng.uniform(3.5, 5.5), excess=rng.uniform(0.3, 1.0)),
        "let_go": lambda rng: push(0.0),
        "reverse": lambda rng: swing(-rng.uniform(1.0, 4.0), grip=-0.3),
        "push": lambda rng: push(rng.uniform(-6.0, 6.0)),
    },
    stretch=(3, 8),  # 0.12 to 0.32 s
)


def on_duty(rng: np.random.Generator, world: World) -> Shift:
    """The operator of one episode."""
    return Shift(CREW, rng, world)
