"""Draw ten classes of garments, a stand-in for Fashion-MNIST, into the file that vgglab.data ships.

Each garment is a short function that draws on a `Sketch`. Coordinates are pixels of the 28x28 image measured
from its centre, x to the right and y down. Tones are relative to the garment's own light: 1 is its cloth.
"""

import numpy as np
from PIL import Image, ImageDraw

from vgglab._files import replacing
from vgglab.data.fashion_mnist import GARMENTS

SIDE, SUPERSAMPLING = 28, 6
GRID = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1) - (SIDE - 1) / 2


def mirror(right):
    """Return the closed outline whose right half, from top to bottom, is given."""
    return [*right, *((-x, y) for x, y in reversed(right))]


def smooth(points, closed):
    """Return the points with corners cut twice (Chaikin's algorithm); a point given twice stays a corner."""
    points = np.array(points, dtype=float)
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut[:-2], points[-1:]])
    return points


class Sketch:
    """A black sheet that places all that is drawn on it by one random size, tilt, position, light and pen."""

    def __init__(self, rng):
        self.rng, u = rng, rng.uniform
        tilt, size = u(-0.13, 0.13), u(0.75, 1)
        self.rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        stretch = np.array([[size * u(0.87, 1), 0], [u(-0.06, 0.06), size * u(0.92, 1)]])
        self.matrix = stretch @ self.rotation
        self.shift = SIDE / 2 + u(-1, 1, 2) * (SIDE / 2 * (1 - size) + 0.5)
        self.light, self.pen = u(0.3, 0.95), u(0.75, 1.1)
        self.trim = u(0.35, 0.65) if self.light > 0.5 else u(1.6, 2.2)
        self.image = Image.new("L", (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING))
        self.draw = ImageDraw.Draw(self.image)

    def place(self, points):
        placed = (np.asarray(points, dtype=float) @ self.matrix + self.shift) * SUPERSAMPLING
        return np.rint(placed).astype(int).ravel().tolist()

    def ink(self, tone):
        return min(255, round(255 * self.light * tone))

    def fill(self, points, tone=1.0):
        self.draw.polygon(self.place(points), fill=self.ink(tone))

    def blob(self, points, tone=1.0):
        self.fill(smooth(points, closed=True), tone)

    def line(self, points, tone=0.6, width=0.8):
        self.draw.line(self.place(points), self.ink(tone), round(self.pen * width * SUPERSAMPLING), "curve")

    def curve(self, points, tone=0.6, width=0.8):
        self.line(smooth(points, closed=False), tone, width)

    def both(self, draw, points, *style):
        for side in (-1, 1):
            draw([(side * x, y) for x, y in points], *style)

    def dots(self, points, radius):
        for x, y in points:
            self.fill([(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)], self.trim)

    def finish(self, patterned):
        """Return the sheet as uint8 (28, 28), shaded, noisy and, with that probability, patterned."""
        u, noise = self.rng.uniform, self.rng.standard_normal
        x, y = np.moveaxis(GRID @ self.rotation.T, -1, 0)
        cloth = 1 - u(0, 0.25) * (x / 14) ** 2 + u(-0.2, 0.2) * y / 14 + u(0.02, 0.07) * noise((SIDE, SIDE))
        if u() < patterned:
            across, down = (np.sin(2 * np.pi / u(2.5, 6) * axis + u(0, 7)) for axis in (x, y))
            blotches = noise((14, 14)).clip(-1, 1).repeat(2, axis=0).repeat(2, axis=1)
            cloth += u(0.1, 0.3) * (down, across, (across + down) / 2, blotches)[int(u(0, 4))]
        pixels = np.asarray(self.image.reduce(SUPERSAMPLING)) * cloth
        return np.rint(pixels).clip(0, 255).astype(np.uint8)


def top(s, body, sleeve, neck):
    """Draw what T-shirt, pullover, dress, coat and shirt share.

    The body is (shoulder, waist, hem, bottom), the sleeve (length, angle, cuff), the neck (width, drop, tone inside).
    """
    (shoulder, waist, hem, bottom), (length, angle, cuff), (width, drop, inside) = body, sleeve, neck
    joint, armpit = np.array([shoulder - 2, -9.2]), (shoulder - 0.6, -5.5)
    along, across = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    wrist, seam = joint + length * along, joint + (length - 2) * along
    if length:
        s.both(s.fill, [joint + 2.4 * across, wrist + cuff * across, wrist - cuff * across, joint - 2.4 * across])
    if length > 12:
        s.both(s.line, [seam + cuff * across, seam - cuff * across])
    s.fill(mirror([(width, -12.6), (shoulder - 0.8, -11.5), (shoulder, -10.6), armpit, (waist, 2), (hem, bottom)]))
    if length:
        s.both(s.line, [(shoulder - 0.3, -10.3), armpit, (waist, 2), (hem, bottom)], 0.45)
    neckline = [(-width, -13), (-width, drop - 12.6), (0, drop - 12), (width, drop - 12.6), (width, -13)]
    s.fill(smooth(neckline, closed=False), inside)
    s.curve([(x, y + 0.4) for x, y in neckline], 0.7)


def t_shirt(s, u):
    body = u(5.8, 7.4), u(5, 6.6), u(5.4, 7.2), u(8, 13)
    top(s, body, sleeve=(u(4.5, 7.5), u(0.4, 1), u(1.9, 2.5)), neck=(u(2.4, 3.8), u(1.5, 4), 0.45 * (u() < 0.4)))
    if u() < 0.4:
        y = u(-5, -3)
        s.fill(mirror([(u(1.5, 3.5), y), (u(1.5, 3.5), y + u(1.5, 5))]), s.trim)


def trouser(s, u):
    waist, knee, ankle, gap, bottom = u(3.6, 5), u(4, 6), u(3, 6.5), u(0.2, 2.6), u(9, 13)
    outside = [(0, -12.5), (waist, -12.5), (waist + 1, -6), (gap / 2 + knee, 2), (gap + ankle, bottom)]
    s.both(s.fill, [*outside, (gap, bottom), (gap / 2 + 0.2, 2), (0, u(-5, -3))])
    s.both(s.line, [(waist - 0.6, -10), (waist + 0.2, -7)])
    s.line([(-waist, -11.8), (waist, -11.8)], s.trim, 1.3)
    s.line([(0, -12), (0, -4)])


def pullover(s, u):
    hem, bottom = u(5.2, 6.4), u(8, 12)
    body = u(6, 7.4), u(5.2, 6.4), hem, bottom
    top(s, body, sleeve=(u(16, 20), u(0.14, 0.38), u(1.3, 2)), neck=(u(2.2, 3.2), u(1, 2.5), 0.45 * (u() < 0.7)))
    s.line([(-hem, bottom - 1.8), (hem, bottom - 1.8)])
    if u() < 0.25:
        s.fill(mirror([(2.6, -13.8), (3, -11), (0.5, -10.4)]), 0.8)
    if u() < 0.35:
        y = u(-5, 0)
        s.fill(mirror([(5, y), (5, y + u(1.5, 4))]), s.trim)


def dress(s, u):
    waist, hem, y = u(2.6, 4.4), u(4.5, 9), u(-4, 0)
    sleeve = (u() < 0.45) * u(3.5, 15), u(0.1, 0.5), 1.6
    top(s, (u(3.4, 5.4), waist, waist, y), sleeve, neck=(u(1.8, 2.6), u(1.5, 5), 0))
    s.blob(mirror([(waist, y - 0.5), (waist, y - 0.5), ((waist + hem) / 2, 4), (hem, 12.6), (hem, 12.6)]))
    for x in (-0.6, -0.2, 0.2, 0.6) if u() < 0.6 else ():
        s.line([(x * waist, y + 1), (x * hem, 12.3)], 0.7)
    if u() < 0.5:
        s.line([(-waist, y), (waist, y)], s.trim, 1.3)


def coat(s, u):
    lapel, bottom = u(-6, 0), u(11, 13)
    body = u(6.2, 7.6), u(5.4, 6.8), u(6, 7.8), bottom
    top(s, body, sleeve=(u(16, 20), u(0.12, 0.34), u(1.6, 2.2)), neck=(2.6, 1.5, 0))
    s.fill([(-1.6, -12), (1.6, -12), (0, lapel)], 0.4)
    s.both(s.fill, [(1.2, -13.2), (3, -12.4), (4.2, -8.5), (2.8, -8), (3.2, -7), (0.2, lapel)], 0.75)
    s.both(s.line, [(1.3, -13), (3.9, -8.6), (0.1, lapel)], 0.4, 0.6)
    s.both(s.line, [(2.8, 5), (5.6, 4.4)])
    s.line([(0, lapel), (0, bottom)], 0.3, 1.2)
    columns = (-1.8, 1.8) if u() < 0.5 else (1.5,)
    s.dots([(x, y) for x in columns for y in np.arange(lapel + 2, 9, 3.2)], 0.6)
    if u() < 0.3:
        s.line([(-6, 1.5), (6, 1.5)], 0.5, 1.6)


def sandal(s, u):
    heel, strap, sole = (u() < 0.6) * u(3, 8), u(1.6, 2.3), u(0.6, 0.9)
    base = 4 + heel / 2
    back = base - heel
    if heel:
        width = 8 if u() < 0.4 else u(1.2, 3)
        s.fill([(12 - width, back), (12.3, back), (11.6, base + 1), (11.6 - width * 0.8, base + 1)], sole)
    if heel or u() < 0.5:
        ankle = back - u(5, 7)
        s.line([(11.3, back), (10.8, ankle)], 1, strap)
        s.curve([(10.8, ankle), (7, ankle - 2), (3.5, ankle), (7, ankle + 2), (10.8, ankle)], 1, strap)
        s.line([(3.8, ankle + 0.5), (-2, base - 2)], 1, strap)
    for x in (-8.5, -3)[: 1 + (u() < 0.5)]:
        s.curve([(x - 2, base), (x - 0.5, base - 8), (x + 5, base - 1)], 1, strap)
    s.curve([(-12.5, base), (-3, base), (0, base), (6, back), (12, back)], sole, u(2, 3))


def shirt(s, u):
    bottom = u(9, 12.5)
    body = u(5.8, 7.2), u(4.8, 6.4), u(5.4, 6.8), bottom
    sleeve = (u(15, 19.5), u(0.12, 0.36), 1.6) if u() < 0.7 else (u(5.5, 8), u(0.4, 0.8), 2.2)
    top(s, body, sleeve, neck=(2.6, 1.5, 0))
    s.both(s.fill, [(4, bottom + 0.3), (7.5, bottom + 0.3), (7.5, bottom - 2)], 0)
    s.line([(0, -11), (0, bottom)], 0.5)
    s.dots([(0, y) for y in np.arange(-8.5, bottom, 3)], 0.6)
    s.both(s.fill, [(0, -11.6), (1.2, -13.4), (2.6, -13), (3.2, -10), (1.4, -8.8)], 1.12)
    s.both(s.line, [(0, -11.6), (1.4, -8.8), (3.2, -10)], 0.4, 0.6)
    if u() < 0.6:
        s.line([(2.2, -2), (2.2, -5.6), (4.8, -5.6), (4.8, -2), (2.2, -2)], 0.5, 0.6)


def sneaker(s, u):
    collar, sole, slant = u(-5, -2.5), u(2.2, 3.4), u(-1, 4)
    toe = [(-12.3, 5), (-12.3, 5), (-12.3, 1.5), (-8, 0), (-3, -1.8), (0.5, collar - 0.5), (3, collar - 2)]
    s.blob([*toe, (4, collar + 1), (8, collar + 1.2), (11, collar - 1.2), (12, collar), (11.6, 5), (11.6, 5)])
    s.blob([(-12.8, 4), (12.3, 4), (12.3, 4), (12.5, 4 + sole), (-11.5, 4 + sole), (-12.8, 4.5)], s.trim)
    for t in (0.1, 0.4, 0.7, 1):
        x, y = 7 * t - 6, (collar + 0.2) * t - 0.3
        s.line([(x - 0.5, y - 0.6), (x + 1, y + 1.8)], s.trim)
    for x in range(1, int(u(1, 8)), 2):
        s.line([(x, 3.8), (x + slant, collar + 2)], s.trim, 0.9)
    if u() < 0.5:
        s.curve([(-9, 3.8), (-7, 2), (-7.5, 0)])


def bag(s, u):
    rim, bottom, middle, low, handle = u(-7, 0), u(7, 12), u(7, 11), u(7, 12), u()
    if handle < 0.45:
        for peak, tone in ((rim - 7, 0.6), (rim - 5, 0.9)):
            s.curve([(-5, rim), (-4.5, peak), (4.5, peak), (5, rim)], tone, 1.1)
    elif handle < 0.8:
        s.curve([(1 - middle, rim + 1), (-3, -15), (3, -15), (middle - 1, rim + 1)], 0.8, 1.1)
    s.blob(mirror([(middle, rim), (middle, rim), (low, bottom - 2), (low, bottom), (low - 2, bottom)]))
    if u() < 0.5:
        flap = rim + u(0.35, 0.6) * (bottom - rim)
        s.blob(mirror([(middle, rim), (middle, rim), (middle, flap - 1), (middle / 2, flap)]), 0.8)
        s.dots([(0, flap)], 1.5)
    else:
        s.line([(-middle, rim + 1.5), (middle, rim + 1.5)], s.trim)
        s.both(s.line, [(5, rim), (5, bottom - 0.5)])


def ankle_boot(s, u):
    shaft, heel, fastener = u(-11, -7), u(1.2, 4), u()
    back = 10 - heel
    front = [(0, 10), (0, 10), (-12.3, 10), (-12.3, 10), (-12.6, 6), (-8, 4), (-4, 3), (0, -1), (0, shaft), (0, shaft)]
    s.blob([*front, (11, shaft), (11, shaft), (10.5, 0), (12, 5), (12, back), (12, back), (4, back)])
    s.fill([(5.5, back), (12, back), (11.6, 11), (6.8, 11)], 0.6)
    s.curve([(-12.4, 10.3), (-1, 10.3), (1, 10.3), (5, back + 0.7), (12, back + 0.7)], 0.6, 1.3)
    if fastener < 0.35:
        s.fill([(3, shaft + 1), (7.5, shaft + 1), (6.6, 2), (4.4, 2)], s.trim)
    elif fastener < 0.75:
        for y in np.linspace(shaft + 1.5, 2, 5):
            s.line([(-0.6 - 1.2 * max(0, y), y), (2.5 - max(0, y), y + 0.8)], s.trim)
    else:
        s.line([(6, shaft), (6.5, back - 1)], s.trim)
        s.line([(0, shaft + 1.5), (11, shaft + 1.5)])


# How each class is drawn, and how often its cloth is patterned.
DRAWN = {
    "T-shirt/top": (t_shirt, 0.4),
    "Trouser": (trouser, 0.2),
    "Pullover": (pullover, 0.4),
    "Dress": (dress, 0.4),
    "Coat": (coat, 0.3),
    "Sandal": (sandal, 0),
    "Shirt": (shirt, 0.6),
    "Sneaker": (sneaker, 0.1),
    "Bag": (bag, 0.3),
    "Ankle boot": (ankle_boot, 0),
}
CLASSES = tuple(DRAWN)


def draw(label, rng):
    """Return one garment of the class with that number, uint8 (28, 28), varied by the generator."""
    garment, patterned = DRAWN[CLASSES[label]]
    sketch = Sketch(rng)
    garment(sketch, rng.uniform)
    return sketch.finish(patterned)


def drawn_images(train, test, seed=0):
    """Draw garments of the ten `CLASSES`: every ten in a row hold each class once, and no two are the same.

    Returns train_pixels, train_labels, test_pixels, test_labels: uint8 (N, 1, 28, 28) and (N,). The same seed gives
    the same images under the same NumPy and Pillow.
    """
    drawn, result = set(), []
    for count, stream in zip((train, test), np.random.SeedSequence(seed).spawn(2), strict=True):
        rng = np.random.default_rng(stream)
        labels = np.concatenate([rng.permutation(10) for _ in range(0, count, 10)])[:count].astype(np.uint8)
        pixels = np.empty((count, 1, SIDE, SIDE), np.uint8)
        for index, label in enumerate(labels):
            while (image := draw(label, rng)).tobytes() in drawn:
                pass
            drawn.add(image.tobytes())
            pixels[index] = image
        result += [pixels, labels]
    return tuple(result)


def main():
    names = ("train_pixels", "train_labels", "test_pixels", "test_labels")
    with replacing(GARMENTS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **dict(zip(names, drawn_images(6000, 1000), strict=True)))


if __name__ == "__main__":
    main()
