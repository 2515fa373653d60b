"""How a patient becomes a scan: shapes painted slice by slice, then noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom.body import draw_body

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lessismore_transforms.phantom.body import Array, Body, Point

LENGTH_MM = 480.0  # hip joints to lung apices
_MIDDLE_Y = 7.0  # of skin and muscle: the spine takes room behind the axis
_LESION_SHRINK = 0.5  # a lesion is drawn, and labelled, where its section is at least half as wide as its middle


@dataclass(frozen=True)
class PhantomScan:
    """One synthetic scan: slices feet to head, rows to posterior, columns to the patient's left.

    Args:
        hu: (S, H, W) int16, HU.
        spacing_mm: distance of slices, rows and columns.
        origin_mm: DICOM (LPS) position of the first pixel of slice 0, x, y, z.
        patient: invented name; it is also the DICOM PatientID.
        region: per slice "pelvis", "abdomen" or "chest".
        lesion: per slice 1 where a lesion was drawn, else 0.
    """

    hu: NDArray[np.int16]
    spacing_mm: Point
    origin_mm: Point
    patient: str
    region: tuple[str, ...]
    lesion: tuple[int, ...]


def phantom_scan(
    seed: int, *, slices: int = 120, size: int = 256, slice_spacing_mm: float | None = None
) -> PhantomScan:
    """The scan of the patient that belongs to `seed`; the same arguments give the same voxels.

    Args:
        seed: number of the patient; not negative.
        slices: number of slices.
        size: rows and columns, at least 16.
        slice_spacing_mm: distance of slices; by default all of `LENGTH_MM` is covered, so that fewer slices are
            thicker. A smaller spacing gives a slab of neighbouring slices around the middle of the body.

    Raises:
        UserError: the seed is negative, there are no slices, the images are tiny or the slab is longer than the body.
    """
    if seed < 0 or slices < 1 or size < 16:
        raise UserError(
            f"expected seed >= 0, slices >= 1 and size >= 16, found {seed}, {slices} and {size}; change that one"
        )
    dz = round(LENGTH_MM / slices, 4) if slice_spacing_mm is None else slice_spacing_mm
    if not 0 < dz * slices < LENGTH_MM + 0.1:
        raise UserError(
            f"expected slices * slice_spacing_mm in (0, {LENGTH_MM:g}], found {slices} * {dz:g} mm; lower one of them"
        )
    body = draw_body(seed)
    pixel = round(body.view_mm / size, 4)
    view = pixel * (np.arange(size, dtype=np.float64) - (size - 1) / 2)
    x, y = (view - body.shift[0]) / body.scale[0], (view - body.shift[1]) / body.scale[1]
    first_mm = (LENGTH_MM - dz * (slices - 1)) / 2
    heights = (first_mm + dz * np.arange(slices) - body.shift[2]) / body.scale[2]
    canvas = _Canvas(np.full((size, size), -1000.0), x, y, 1.1 * pixel)
    _paint_table(canvas, float(_MIDDLE_Y + body.landmarks[:, 2].max() + 0.8 * body.fat_mm + body.sway[0, 1]))
    hu = np.empty((slices, size, size), np.int16)
    for index, z in enumerate(heights):
        # One generator per slice; + 1 because NumPy pads seeds with zeros: [seed, 0] is [seed].
        noise = _noise(np.random.default_rng([seed, index + 1]), size) * body.noise_hu * (3.0 / max(dz, 1.0)) ** 0.5
        sway = body.sway[0] * np.sin(z / body.sway[1] + body.sway[2])
        moved = _Canvas(canvas.image.copy(), x - sway[0], y - sway[1], canvas.edge)
        image = _slice(moved, body, float(z), noise)
        hu[index] = np.rint(np.clip(image, -1024.0, 3071.0))
    corner = round(float(view[0]), 4)
    chest = body.lungs.domes[0] - 25.0
    return PhantomScan(
        hu=hu,
        spacing_mm=(dz, pixel, pixel),
        # Of no meaning, as on a real scanner, and different along the three axes so that a mix-up shows.
        origin_mm=(corner, round(corner - 160.0, 4), round(first_mm - 900.0, 4)),
        patient=f"phantom_{seed:04d}",
        region=tuple("pelvis" if z < 165.0 else "abdomen" if z < chest else "chest" for z in heights),
        lesion=tuple(int(np.any(_shrink(body.lesions, z) >= _LESION_SHRINK)) for z in heights),
    )


class _Canvas(NamedTuple):
    """A slice in the making: image (H, W) in HU, x (W,) and y (H,) of its pixels, width of an edge, in mm."""

    image: Array
    x: Array
    y: Array
    edge: float

    def blend(self, coverage: Array, hu: Array | float) -> None:
        """Paint where coverage (H, W) is above 0."""
        self.image[...] += coverage * (hu - self.image)

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        hu: float,
        *,
        angle: float = 0.0,
        opacity: float = 1.0,
        within: Array | None = None,
    ) -> None:
        """Paint an ellipse, touching only the pixels around it."""
        reach = max(radii) + self.edge
        rows, columns = _near(self.y, centre[1], reach), _near(self.x, centre[0], reach)
        u = self.x[columns] - centre[0]
        v = (self.y[rows] - centre[1])[:, None]
        if angle:
            u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
        distance = (1 - np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2)) * min(radii)
        coverage = self.coverage(distance) * opacity
        if within is not None:
            coverage *= within[rows, columns]
        patch = self.image[rows, columns]
        patch += coverage * (hu - patch)

    def outline(self, a: float, b: float, middle_y: float, square: float) -> Array:
        """The depth in mm of each pixel inside a rounded box with half axes a and b."""
        u2 = (self.x / a) ** 2
        v2 = ((self.y - middle_y) / b)[:, None] ** 2
        radius = np.sqrt(np.sqrt((u2 + v2) ** 2 - square * u2 * v2))
        return (1 - radius) * (0.5 * (a + b))

    def coverage(self, depth: Array) -> Array:
        """The share 0..1 of each pixel inside a shape of given depth (mm)."""
        return np.minimum(np.maximum(0.5 + depth / self.edge, 0.0), 1.0)


def _near(axis: Array, middle: float, reach: float) -> slice:
    """The pixels of an axis that are within reach of a point."""
    step = axis[1] - axis[0]
    return slice(max(0, int((middle - reach - axis[0]) / step)), max(0, int((middle + reach - axis[0]) / step) + 2))


def _slice(canvas: _Canvas, body: Body, z: float, noise: Array) -> Array:
    """Paint the body at height z and return the image (H, W) in HU."""
    _, ma, mb, ca, cb, cy, spine, _ = (np.interp(z, body.landmarks[:, 0], column) for column in body.landmarks.T)
    skin = canvas.outline(ma + body.fat_mm, mb + 0.8 * body.fat_mm, _MIDDLE_Y, body.square)
    depth = canvas.outline(ca, cb, cy, 0.6)
    cavity = canvas.coverage(depth)
    lung = body.lungs.coverage(canvas.x, canvas.y[:, None], z, canvas.edge) * canvas.coverage(depth - 1.5)
    regions = (None, cavity, lung)
    _paint_solids(canvas, body.breasts, z, regions)
    canvas.blend(canvas.coverage(skin), 10.0)
    canvas.blend(canvas.coverage(skin - 2.0), -105.0)
    muscle = canvas.coverage(canvas.outline(ma, mb, _MIDDLE_Y, body.square))
    canvas.blend(muscle, body.muscle_hu)
    canvas.blend(cavity, -98.0)
    _paint_back_muscles(canvas, z, spine, muscle)
    _paint_solids(canvas, body.abdomen, z, regions)
    uneven = _unevenness(canvas, body.waves, z)
    canvas.image[...] += canvas.coverage(skin) * uneven
    # Lungs are denser at the back, where the blood lies.
    canvas.blend(lung, body.lung_hu + 0.5 * canvas.y[:, None] + 2.0 * uneven + noise)
    _paint_solids(canvas, body.chest, z, regions)
    _paint_ribs(canvas, depth, z, cb, cy, body.bone)
    _paint_spine(canvas, z, spine, body.bone, muscle)
    _paint_sternum(canvas, z, cy - cb, body.bone)
    _paint_solids(canvas, body.lesions[_shrink(body.lesions, z) >= _LESION_SHRINK], z, regions)
    # Noise grows towards the middle of the body, where fewest photons arrive.
    return canvas.image + noise * np.clip(0.3 + skin / 90.0, 0.3, 1.0)


def _unevenness(canvas: _Canvas, waves: Array, z: float) -> Array:
    """A smooth random field (H, W) in HU: the sum of plane waves through the body."""
    kx, ky, kz, phase, hu = waves
    across = np.multiply.outer(kx, canvas.x)  # (K, W)
    down = np.multiply.outer(ky, canvas.y) + (kz * z + phase)[:, None]  # (K, H)
    # cos(across + down) written out; einsum, because BLAS sums in another order on every machine, in its own threads
    rows = np.concatenate([np.cos(down), -np.sin(down)]) * np.concatenate([hu, hu])[:, None]
    field: Array = np.einsum("kh,kw->hw", rows, np.concatenate([np.cos(across), np.sin(across)]))
    return field


def _shrink(solids: Array, z: float) -> Array:
    """The size (n,) of each solid's section at height z, 1 at its centre and 0 outside it."""
    return np.sqrt(np.maximum(0.0, 1.0 - ((z - solids[:, 2]) / solids[:, 5]) ** 2))


def _paint_solids(canvas: _Canvas, solids: Array, z: float, regions: tuple[Array | None, ...]) -> None:
    shrink = _shrink(solids, z)
    for index in np.flatnonzero(shrink > 0):
        x, y, _, rx, ry, _, angle, hu, within = solids[index].tolist()
        s = float(shrink[index])
        canvas.ellipse((x, y), (rx * s, ry * s), hu, angle=angle, within=regions[int(within)])


def _paint_back_muscles(canvas: _Canvas, z: float, spine: float, within: Array) -> None:
    """Paint the erector muscles beside the spine, in a sheath of fat."""
    size = float(np.clip((z + 40) / 160, 0.3, 1) * np.clip((560 - z) / 260, 0.4, 1))
    for side in (-1, 1):
        place = (side * 31.0 * size, spine + 39.0)
        canvas.ellipse(place, (29 * size + 1.5, 18 * size + 1.5), -70.0, angle=side * 0.2, within=within)
        canvas.ellipse(place, (29 * size, 18 * size), 58.0, angle=side * 0.2, within=within)


def _paint_spine(canvas: _Canvas, z: float, y: float, bone: float, within: Array) -> None:
    """Paint vertebra or disc, canal, arch and processes; above the sacrum only."""
    opacity = float(np.clip((z - 118) / 16, 0, 1))
    wave = np.cos(2 * np.pi * z / 31.0)
    disc = float(np.clip((wave - 0.72) / 0.2, 0, 1))
    arch = float(np.clip(0.9 - 0.9 * wave, 0.15, 1)) * opacity
    size = 1.0 - 0.0006 * (z - 160)  # lumbar vertebrae are the largest
    hard, soft = 800 * bone, 210 * bone
    for shell, hu in ((0.0, hard * (1 - disc) + 90 * disc), (2.2, soft * (1 - disc) + 80 * disc)):
        canvas.ellipse((0, y), (24 * size - shell, 17 * size - shell), hu, opacity=opacity)
    for side in (-1, 1):
        canvas.ellipse((side * 12 * size, y + 22), (5, 11), hard * 0.8, angle=side * 0.3, opacity=arch)
        canvas.ellipse((side * 26 * size, y + 27), (17, 4), hard * 0.8, angle=side * 0.45, opacity=arch)
    canvas.ellipse((0, y + 26 * size), (13, 12), hard * 0.9, opacity=max(arch, 0.5 * opacity))
    canvas.ellipse((0, y + 26 * size), (9.5, 8), 30.0, opacity=opacity)
    canvas.ellipse((0, y + 46), (3.5, 15), hard * 0.7, opacity=arch, within=within)


def _paint_ribs(canvas: _Canvas, depth: Array, z: float, cb: float, cy: float, bone: float) -> None:
    """Paint twelve pairs of ribs: bands of the chest wall that sink by 70 mm on their way to the front."""
    if z < 195:
        return
    rows, columns = np.nonzero(np.abs(depth + 5.5) < 5.0 + canvas.edge)
    forward = np.clip((cy + cb - canvas.y[rows]) / (2 * cb), 0, 1)  # 0 at the back, 1 in front
    number, phase = np.divmod((z + 70 * forward - 262) / 24.0, 1.0)  # from the lowest rib upwards
    number = np.clip(number, -1, 13).astype(np.int64)
    ends = np.array([0.32, 0.5, 0.74, 0.86] + [0.97] * 8 + [0.0, 0.0, 0.0])[number]
    off_middle = np.hypot((phase - 0.5) / 0.24, (depth[rows, columns] + 5.5) / 4.6)
    shape = np.clip(0.5 + (1 - off_middle) * 4.6 / canvas.edge, 0, 1) * np.clip((ends - forward) / 0.04, 0, 1)
    shape *= np.clip((np.abs(canvas.x[columns]) - 14) / 8, 0, 1)  # none through the spine
    cartilage = np.clip((forward - 0.84) / 0.05, 0, 1)
    hard = np.where(off_middle < 0.55, 300.0, 900.0) * bone
    hu = hard * (1 - cartilage) + 110.0 * cartilage
    canvas.image[rows, columns] += shape * (hu - canvas.image[rows, columns])


def _paint_sternum(canvas: _Canvas, z: float, front: float, bone: float) -> None:
    """Paint the breast bone, wider at its top."""
    opacity = float(np.clip((z - 318) / 10, 0, 1) * np.clip((448 - z) / 8, 0, 1))
    width = 15.0 + 12.0 * float(np.clip((z - 405) / 25, 0, 1))
    canvas.ellipse((0, front - 6), (width, 6), 650 * bone, opacity=opacity)
    canvas.ellipse((0, front - 6), (width - 2.5, 3.5), 160 * bone, opacity=opacity)


def _paint_table(canvas: _Canvas, top: float) -> None:
    """Paint the scanner's table: a thin curved shell over foam, below the lowest point of the back."""
    x, y = canvas.x, canvas.y[:, None]
    under = y - top + 0.0011 * x**2  # mm below the upper surface
    width = canvas.coverage(215.0 - np.abs(x))
    canvas.blend(canvas.coverage(np.minimum(under, 30 - 0.0018 * x**2 - (y - top))) * width, -880.0)
    canvas.blend(canvas.coverage(1.6 - np.abs(under - 1.6)) * width, 60.0)
    canvas.blend(canvas.coverage(1.6 - np.abs(y - top - 30 + 0.0018 * x**2)) * width, 20.0)


def _noise(rng: np.random.Generator, size: int) -> Array:
    """Noise (size, size) of unit variance whose spectrum peaks between coarse and fine, as in filtered CT."""

    def smooth(image: Array) -> Array:
        image = image[:-2] + 2 * image[1:-1] + image[2:]
        return (image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:]) / 16

    fine = smooth(rng.standard_normal((size + 4, size + 4)))
    return (fine[1:-1, 1:-1] - 0.6 * smooth(fine)) / _NOISE_DEVIATION


_ONCE, _TWICE = np.array([0, 1, 2, 1, 0]) / 4, np.array([1, 4, 6, 4, 1]) / 16
_NOISE_DEVIATION = float(np.sqrt(np.sum((np.outer(_ONCE, _ONCE) - 0.6 * np.outer(_TWICE, _TWICE)) ** 2)))
