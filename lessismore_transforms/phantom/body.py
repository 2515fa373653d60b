"""The patient in the scanner: ellipsoids and outlines, drawn at random from a standard body.

x runs to the patient's left, y to posterior and z to the head, in mm of the standard body, whose axis is x = y = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Point = tuple[float, float, float]
    Knots = Sequence[tuple[float, float, float, float]] | Array  # (k, 4): x, y, z and radius of a tube, mm
    Layers = Sequence[tuple[float, float]]  # (mm below the surface, HU), painted in this order

ANYWHERE, CAVITY, LUNG = range(3)  # where a solid may be painted

# At heights z, in mm: half axes of the muscle outline and of the body cavity (in x, y), y of the cavity's middle,
# y of the spine, half width of the mediastinum.
_LANDMARKS = np.array(
    [
        (-60, 150, 96, 48, 48, -8, 60, 20),
        (0, 151, 102, 56, 54, -10, 60, 20),
        (60, 156, 106, 70, 60, -12, 58, 20),
        (120, 148, 100, 104, 64, -18, 38, 20),
        (180, 134, 96, 118, 69, -21, 32, 22),
        (240, 132, 104, 119, 78, -17, 36, 24),
        (300, 139, 114, 127, 92, -8, 46, 26),
        (360, 147, 118, 133, 99, -3, 55, 26),
        (420, 148, 112, 124, 88, -2, 54, 25),
        (450, 150, 102, 107, 69, 4, 48, 26),
        (480, 160, 88, 78, 48, 8, 42, 28),
        (540, 176, 72, 30, 24, 10, 36, 28),
    ],
    dtype=np.float64,
)


class Solid(NamedTuple):
    """An ellipsoid, turned by `angle` (radians) in the axial plane."""

    x: float
    y: float
    z: float
    rx: float
    ry: float
    rz: float
    angle: float
    hu: float
    within: int


class LungSpace(NamedTuple):
    """The space of the lungs: inside the body cavity, above the diaphragm and beside the mediastinum."""

    landmarks: Array
    domes: tuple[float, float]

    def coverage(self, x: Array, y: Array, z: float | Array, edge: float) -> Array:
        """The share (0..1) to which points lie above the diaphragm and beside the mediastinum."""
        middle = np.interp(z, self.landmarks[:, 0], self.landmarks[:, 7])
        beside = ((x - 4) / middle) ** 2 + ((y - 6) / 88) ** 2
        right = self.domes[0] - 66 * (((x + 64) / 74) ** 2 + ((y + 8) / 88) ** 2)
        left = self.domes[1] - 66 * (((x - 66) / 72) ** 2 + ((y + 4) / 88) ** 2)
        front = self.domes[0] - 10 - 66 * ((x / 58) ** 2 + ((y + 96) / 70) ** 2)  # under the heart
        above = z - np.maximum(np.maximum(right, left), front)
        return np.clip(0.5 + above / (2 * edge), 0, 1) * np.clip(0.5 + (beside - 1) * middle / (2 * edge), 0, 1)

    def holds(self, points: Array, margin: float) -> NDArray[np.bool_]:
        """Mask (n,) of the points (n, 3) that lie in a lung, `margin` mm or more from its wall."""
        x, y, z = points.T
        _, _, _, ca, cb, cy, _, _ = (np.interp(z, self.landmarks[:, 0], column) for column in self.landmarks.T)
        wall = np.hypot(x / (ca - margin), (y - cy) / (cb - margin)) < 1
        clear = self.coverage(x, y, z - margin, 1e-6) > 0.5
        for step in (-margin, margin):
            clear &= self.coverage(x + step, y, z, 1e-6) > 0.5
        heart = ((x - 20) / (60 + margin)) ** 2 + ((y + 24) / (50 + margin)) ** 2 + ((z - 374) / (48 + margin)) ** 2
        inside: NDArray[np.bool_] = wall & clear & (heart > 1)
        return inside

    def sample(self, rng: np.random.Generator, count: int, margin: float) -> Array:
        """(count, 3) random points of the lungs."""
        points = rng.uniform((-130, -85, 285), (130, 85, 475), (400 * count, 3))
        return points[self.holds(points, margin)][:count]


class Body(NamedTuple):
    """The shapes and grey values of one patient."""

    scale: Point  # patient mm for one mm of the standard body
    shift: Point  # position of the body axis in the field of view, mm; start of the scan
    view_mm: float
    noise_hu: float  # standard deviation in a slice of 3 mm
    fat_mm: float  # below the skin
    square: float  # 0 for elliptic outlines, 1 for nearly rectangular ones
    muscle_hu: float
    bone: float  # density, 1 on average
    lung_hu: float
    sway: Array  # (3, 2) how the body axis leaves a straight line in x and y: mm, mm of z for a radian, phase
    waves: Array  # (5, K) how uneven tissue is: waves of x, y, z radians per mm, phase, HU
    landmarks: Array  # (n, 8)
    lungs: LungSpace
    breasts: Array  # these four (n, 9), one `Solid` a row, in painting order
    abdomen: Array
    chest: Array
    lesions: Array


def draw_body(seed: int) -> Body:
    """Draw the patient that belongs to a seed."""
    rng = np.random.default_rng([seed])
    draw = rng.uniform
    scale = (draw(0.9, 1.08), draw(0.9, 1.1), draw(0.95, 1.05))
    fat = draw(8.0, 24.0)
    landmarks = _LANDMARKS.copy()
    landmarks[:, 1:] *= 1 + rng.normal(0, 0.02, landmarks[:, 1:].shape)
    right_dome = draw(338.0, 356.0)
    contrast = draw(0.2, 1.0)
    bone = draw(0.85, 1.15)
    lungs = LungSpace(landmarks, (right_dome, right_dome - draw(4.0, 14.0)))
    abdomen, chest, breasts = _Solids(rng), _Solids(rng), _Solids(rng)
    _pelvis(abdomen, bone)
    _bowel(abdomen)
    _upper_abdomen(abdomen, contrast)
    _chest(chest, contrast, bone)
    _vessels(chest, contrast)
    _lung_vessels(chest, lungs, contrast)
    if draw() < 0.5:
        _breasts(breasts, fat)
    return Body(
        scale=scale,
        shift=(draw(-10.0, 10.0), draw(-22.0, -8.0), draw(-10.0, 10.0)),
        view_mm=2.0 * scale[0] * (162 + fat) * draw(1.02, 1.08),
        noise_hu=draw(9.0, 14.0),
        fat_mm=fat,
        square=draw(0.5, 0.9),
        muscle_hu=48.0 + 16.0 * contrast,
        bone=bone,
        lung_hu=draw(-880.0, -830.0),
        sway=np.stack([draw((6.0, 3.0), (12.0, 7.0)), draw(45.0, 75.0, 2), draw(0.0, 6.0, 2)]),
        waves=np.vstack([rng.normal(0, 0.05, (2, 10)), rng.normal(0, 0.04, 10), draw(0, 6, 10), draw(3, 7, 10)]),
        landmarks=landmarks,
        lungs=lungs,
        breasts=np.array(breasts.items).reshape(-1, 9),
        abdomen=np.array(abdomen.items),
        chest=np.array(chest.items),
        lesions=np.array(_lesions(rng, lungs, contrast)),
    )


def _lesions(rng: np.random.Generator, lungs: LungSpace, contrast: float) -> list[Solid]:
    """Draw one to three lung nodules and up to three dark liver lesions."""
    lesions: list[Solid] = []
    nodules = int(rng.integers(1, 4))
    for (x, y, z), size in zip(lungs.sample(rng, nodules, 16.0), rng.uniform(6, 13, nodules), strict=True):
        rx, ry, rz = size * rng.uniform(0.85, 1.2, 3)
        lesions.append(Solid(x, y, z, rx, ry, rz, rng.uniform(0, np.pi), rng.uniform(20, 70), LUNG))
    for _ in range(int(rng.integers(0, 4))):
        x, y, z = rng.uniform((-98, -28, 260), (-46, 36, 308))
        rx, ry, rz = rng.uniform(8, 18) * rng.uniform(0.85, 1.2, 3)
        lesions.append(Solid(x, y, z, rx, ry, rz, rng.uniform(0, np.pi), 10 + 25 * contrast, CAVITY))
    return lesions


class _Solids:
    """A list of ellipsoids and tubes in painting order, each moved and resized a little at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.items: list[Solid] = []

    def ellipsoid(
        self,
        centre: Point,
        radii: Point,
        layers: Layers,
        *,
        degrees: float = 0.0,
        within: int = ANYWHERE,
        vary: float = 1.0,
    ) -> None:
        """Add concentric ellipsoids."""
        x, y, z = np.array(centre) + self.rng.normal(0, 2.5 * vary, 3)
        size = np.array(radii) * np.exp(self.rng.normal(0, 0.05 * vary, 3))
        angle = np.deg2rad(degrees + self.rng.normal(0, 4.0 * vary))
        for depth, hu in layers:
            rx, ry, rz = np.maximum(size - depth, 0.5)
            self.items.append(Solid(x, y, z, rx, ry, rz, angle, hu, within))

    def tube(self, knots: Knots, layers: Layers, *, within: int = ANYWHERE, vary: float = 1.0) -> Array:
        """Add concentric tubes as chains of spheres along a curve; return the spheres, (n, 4) x, y, z, radius."""
        moved = np.array(knots, dtype=np.float64)
        moved[:, :3] += self.rng.normal(0, 2.5 * vary, (len(moved), 3))
        moved[:, 3] *= np.exp(self.rng.normal(0, 0.06))
        beads = _beads(moved)
        for depth, hu in layers:
            for x, y, z, radius in beads.tolist():
                r = max(radius - depth, 0.5)
                self.items.append(Solid(x, y, z, r, r, r, 0.0, hu, within))
        return beads


def _beads(knots: Array) -> Array:
    """Overlapping spheres (n, 4) along the smooth curve (Catmull-Rom) through knots (k, 4)."""
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    a, b, c, d = ends[:-3, None], ends[1:-2, None], ends[2:-1, None], ends[3:, None]
    t = np.linspace(0, 1, 32, endpoint=False)[:, None]
    fine = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = np.vstack([fine.reshape(-1, 4), knots[-1:]])
    # Half a radius apart: thin tubes need more spheres than thick ones.
    steps = np.linalg.norm(np.diff(curve[:, :3], axis=0), axis=1) / (0.5 * np.maximum(curve[1:, 3], 0.5) + 0.3)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0, along[-1], max(2, int(along[-1]) + 1))
    return np.stack([np.interp(at, along, column) for column in curve.T], axis=1)


def _breasts(add: _Solids, fat_mm: float) -> None:
    """Skin, fat and glands."""
    for side in (-1, 1):
        add.ellipsoid((side * 72, -95, 372), (56, 30 + fat_mm, 44), [(0, 10), (2, -100)])
        add.ellipsoid((side * 76, -108, 368), (28, 18, 24), [(0, -25)])


def _pelvis(add: _Solids, bone: float) -> None:
    """Hip bones, sacrum, muscles, bladder."""
    hard, soft = 1000 * bone, 280 * bone
    for s in (-1, 1):
        add.ellipsoid((s * 78, 62, 70), (3, 34, 80), [(0, -60)], degrees=s * 62)  # fat between the muscles
        add.ellipsoid((s * 110, 40, 60), (3, 40, 70), [(0, -60)], degrees=s * 30)
        add.ellipsoid((s * 92, -42, 10), (34, 4, 50), [(0, -70)], degrees=-s * 25)
        add.ellipsoid((s * 80, 24, 110), (50, 7, 62), [(0, hard), (2.5, soft)], degrees=-s * 52)
        add.ellipsoid((s * 82, 4, 38), (20, 30, 36), [(0, hard), (3, soft)])
        add.ellipsoid((s * 66, 42, 0), (13, 17, 42), [(0, hard), (3, soft)])
        add.tube([(s * 72, -22, 24, 9), (s * 40, -46, 14, 9), (s * 7, -56, 2, 9)], [(0, hard), (2.5, soft)])
        head = [(0, hard), (3, 60), (5, hard * 0.6), (7.5, soft * 1.4)]
        add.ellipsoid((s * 94, 0, 22), (29, 29, 29), head, vary=0.3)
        add.tube([(s * 100, 4, 18, 15), (s * 118, 14, 2, 15), (s * 126, 16, -40, 15)], [(0, hard), (3, soft)])
        psoas = [(26, 42, 260, 6), (38, 34, 200, 14), (50, 22, 140, 21), (62, -14, 60, 19), (76, -32, 0, 17)]
        add.tube([(s * x, y, z, r) for x, y, z, r in psoas], [(-2, -70), (0, 58)])
    add.ellipsoid((0, 60, 95), (46, 17, 48), [(0, hard), (3, soft)])
    add.ellipsoid((0, 72, 32), (9, 6, 26), [(0, hard), (3, soft)])
    add.ellipsoid((0, 10, 20), (24, 18, 24), [(0, 52)])
    add.ellipsoid((0, -20, 42), (34, 28, 32), [(0, 40), (3, 5)])


def _bowel(add: _Solids) -> None:
    """Colon with stool and gas, small bowel loops, mesenteric vessels."""
    rng = add.rng
    knots = [
        (-86, -8, 118, 20), (-97, 2, 165, 21), (-98, 4, 215, 20), (-88, -30, 240, 18), (-50, -58, 226, 16),
        (0, -64, 212, 15), (48, -60, 232, 15), (88, -28, 262, 15), (99, 10, 268, 15), (103, 12, 215, 14),
        (102, 10, 160, 13), (88, -4, 118, 13), (58, -12, 92, 13), (28, 8, 84, 12), (4, 34, 86, 13),
        (0, 44, 60, 15), (0, 46, 20, 14), (0, 50, -30, 10),
    ]  # fmt: skip
    colon = add.tube(knots, [(-2, -80), (0, 50), (2.5, 20)])
    for x, y, z, _ in colon[rng.random(len(colon)) < 0.5]:
        stool = rng.uniform(5, 11)
        add.ellipsoid((x, y + 3, z), (stool, stool, stool), [(0, rng.uniform(-120, 60))])
    swing = np.sin(np.arange(len(colon)) / rng.uniform(5, 9) + rng.uniform(0, 6))
    for (x, y, z, _), gas in zip(colon, 16 * swing - 3 + rng.normal(0, 2, len(colon)), strict=True):
        if gas > 3:
            add.ellipsoid((x, y - 15 + gas, z), (gas, 0.8 * gas, gas), [(0, -950)], vary=0.2)
    for _ in range(8):
        loop = rng.uniform((-80, -66, 70, 11), (80, -2, 235, 13), (rng.integers(7, 10), 4))
        bowel = add.tube(loop, [(0, 75), (2, rng.uniform(15, 35))], within=CAVITY)
        for x, y, z, _ in bowel[rng.random(len(bowel)) < 0.06]:
            add.ellipsoid((x, y - 3, z), (7, 4.5, 8), [(0, -930)], within=CAVITY, vary=0.5)
    for _ in range(14):
        x, y, z = rng.uniform((-70, -60, 110), (70, -20, 240))
        add.tube([(0, 0, 235, 3.5), (x / 2, y / 2 - 4, z / 2 + 105, 2.5), (x, y, z, 1.5)], [(0, 110)])


def _upper_abdomen(add: _Solids, contrast: float) -> None:
    """Stomach, oesophagus, duodenum, pancreas, liver, gallbladder, spleen, kidneys."""
    liver, spleen, cortex = 58 + 48 * contrast, 50 + 65 * contrast, 36 + 145 * contrast
    add.ellipsoid((58, -18, 300), (44, 38, 44), [(0, 65), (4, 20)], within=CAVITY)
    add.ellipsoid((54, -34, 306), (32, 16, 28), [(0, -960)], within=CAVITY)
    add.tube([(8, 24, 500, 8), (8, 27, 420, 8), (12, 26, 360, 8), (20, 12, 330, 8)], [(0, 45), (5, 10)])
    duodenum = [(20, -38, 285, 11), (-18, -22, 268, 11), (-40, -2, 255, 11), (-34, 6, 228, 11), (4, 4, 215, 11)]
    add.tube(duodenum, [(0, 70), (2.5, 18)])
    pancreas = [(-30, -4, 240, 12), (-16, -14, 252, 10), (14, -12, 262, 8), (48, 10, 276, 9), (76, 24, 290, 7)]
    add.tube(pancreas, [(0, 50 + 45 * contrast)])
    add.ellipsoid((-62, 0, 300), (76, 74, 62), [(0, liver)], within=CAVITY)
    add.ellipsoid((-88, 6, 262), (38, 50, 62), [(0, liver)], within=CAVITY)
    add.ellipsoid((18, -46, 318), (58, 32, 32), [(0, liver)], within=CAVITY, degrees=8)
    add.ellipsoid((-48, -40, 258), (15, 18, 26), [(0, 35), (2, 8)])
    add.ellipsoid((96, 36, 300), (30, 44, 40), [(0, spleen)], within=CAVITY, degrees=12)
    for s, z in ((-1, 208), (1, 220)):
        add.ellipsoid((s * 62, 36, z), (31, 28, 60), [(0, -95)], degrees=s * 25, vary=0.4)  # fat around
        add.ellipsoid((s * 62, 36, z), (26, 21, 52), [(0, cortex), (8, cortex * 0.72)], degrees=s * 25, vary=0.8)
        kidney = add.items[-1]
        add.ellipsoid((kidney.x - s * 12, kidney.y - 4, kidney.z), (13, 8, 26), [(0, -70), (5, 20)], vary=0.2)


def _chest(add: _Solids, contrast: float, bone: float) -> None:
    """Heart, airways, shoulder girdle."""
    blood, muscle = 45 + 190 * contrast, 50 + 60 * contrast
    add.ellipsoid((20, -24, 374), (66, 52, 54), [(0, -85), (6, muscle)], degrees=28, within=CAVITY, vary=0.5)
    add.ellipsoid((42, -16, 366), (24, 17, 30), [(0, blood)], degrees=28)
    add.ellipsoid((10, -46, 370), (28, 14, 30), [(0, blood)], degrees=28)
    add.ellipsoid((12, 12, 386), (30, 15, 20), [(0, blood)], degrees=28)
    add.ellipsoid((-24, -18, 378), (17, 24, 28), [(0, blood)], degrees=28)
    wall = [(0, 40), (1.8, -1000)]
    add.tube([(0, 4, 540, 10), (0, 6, 490, 10), (1, 12, 452, 10), (2, 16, 424, 10)], wall, vary=0.5)
    hard, soft = 1000 * bone, 280 * bone
    for s in (-1, 1):
        add.tube([(2, 16, 424, 8), (s * 20, 16, 412, 7), (s * 42, 16, 400, 5.5)], wall, vary=0.4)
        add.tube([(s * 42, 16, 400, 4.5), (s * 58, 30, 370, 3.5), (s * 66, 40, 345, 2.5)], [(0, 30), (1.2, -980)])
        clavicle = [(22, -66, 442, 9), (62, -58, 458, 7), (108, -34, 470, 6), (148, -8, 482, 7)]
        add.tube([(s * x, y, z, r) for x, y, z, r in clavicle], [(0, hard), (2.5, soft)])
        add.ellipsoid((s * 112, 58, 432), (34, 5.5, 56), [(0, hard), (2, soft)], degrees=-s * 48)
        add.ellipsoid((s * 126, 46, 474), (22, 9, 26), [(0, hard), (2.5, soft)], degrees=-s * 30)
        add.ellipsoid((s * 112, 50, 432), (36, 2.5, 52), [(0, -55)], degrees=-s * 48)
        add.ellipsoid((s * 152, 10, 512), (25, 25, 36), [(0, hard), (3, soft)])
        add.ellipsoid((s * 133, -6, 462), (8, 34, 48), [(0, -90)], degrees=-s * 12)  # fat of the armpit
        add.tube([(s * 112, -30, 464, 4), (s * 132, -12, 468, 4), (s * 150, 0, 520, 4)], [(0, blood)])


def _vessels(add: _Solids, contrast: float) -> None:
    """Veins, aorta and its branches, pulmonary arteries."""
    artery, vein = [(0.0, 45 + 200 * contrast)], [(0.0, 45 + 120 * contrast)]
    portal = [(0.0, 55 + 120 * contrast)]
    add.tube([(-24, 12, 172, 10), (-25, 12, 240, 11), (-26, 10, 300, 12), (-24, 2, 352, 12)], vein, vary=0.6)
    add.tube([(-28, -4, 368, 9), (-28, -10, 400, 9), (-27, -12, 440, 9), (-28, -14, 475, 9)], vein, vary=0.6)
    for s in (-1, 1):
        add.tube([(-22, 14, 176, 9), (s * 34, 26, 112, 8), (s * 58, 2, 62, 7), (s * 66, -52, 0, 7)], vein)
        add.tube([(5, 6, 184, 7), (s * 26, 16, 128, 6), (s * 52, -4, 66, 5), (s * 60, -54, 0, 5)], artery)
        add.tube([(0, 6, 226, 4), (s * 26, 20, 222, 4), (s * 46, 30, 216, 4)], artery)
        add.tube([(s * 10, -8, 446, 5), (s * 14, -4, 470, 5), (s * 24, 0, 510, 5)], artery)
    for x, y, z in ((-50, -12, 322), (-84, 8, 315), (-20, -24, 322)):
        add.tube([(-24, 4, 344, 5), (x, y, z, 4), (x * 1.3, y * 1.3, 290, 2)], portal)
    add.tube([(-4, -8, 248, 7), (-28, -6, 278, 7), (-52, -6, 296, 6), (-84, 2, 296, 4)], portal)
    add.tube([(12, -28, 392, 14), (16, -18, 410, 13), (38, 6, 414, 10), (52, 14, 404, 8)], artery, vary=0.6)
    add.tube([(14, -14, 410, 12), (-10, 0, 404, 10), (-44, 10, 398, 8)], artery, vary=0.6)
    aorta = [
        (3, 6, 182, 8.5), (4, 10, 240, 10), (8, 16, 300, 11), (17, 28, 350, 12), (22, 30, 400, 12.5),
        (21, 26, 428, 13), (14, 8, 443, 13), (-2, -14, 444, 14), (-14, -26, 426, 15), (-14, -26, 398, 15.5),
        (2, -18, 376, 15),
    ]  # fmt: skip
    add.tube(aorta, artery, vary=0.6)


def _lung_vessels(add: _Solids, lungs: LungSpace, contrast: float) -> None:
    """Arteries and veins from the hila outwards, each with a few side branches."""
    rng = add.rng
    for tip in lungs.sample(rng, 90, 5.0):
        root = np.array((np.sign(tip[0]) * 42, 12, 401)) + rng.normal(0, 5, 3)
        bend = root + (tip - root) * (0.5, 0.45, 0.6) + rng.normal(0, 5, 3)
        width = rng.uniform(2.5, 4.5)
        knots = [(*root, width), (*bend, width * 0.6), (*tip, 1.0)]
        stem = add.tube(knots, [(0, 40 + 110 * contrast)], within=LUNG)
        for bead in stem[len(stem) // 3 :: max(1, len(stem) // 4)]:
            end = bead[:3] + rng.normal(0, 14, 3) + 0.25 * (tip - root)
            add.tube([(*bead[:3], 1.6), (*end, 0.7)], [(0, 0)], within=LUNG, vary=0.2)
