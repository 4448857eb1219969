//! The ten objects as signed distances: negative inside, positive outside, about 1 per unit of length near the edge.
//!
//! An object lies in [-1, 1]², x to the right, y down. Everything is +, −, ×, ÷ and √, which IEEE 754 rounds the same
//! on every machine; there is no sine anywhere.

/// A point or a vector of the plane.
pub(super) type Point = [f32; 2];

pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

pub(super) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

fn length(a: Point) -> f32 {
    dot(a, a).sqrt()
}

fn circle(p: Point, centre: Point, radius: f32) -> f32 {
    length(sub(p, centre)) - radius
}

/// Exact on the edge, scaled elsewhere.
pub(super) fn ellipse(p: Point, centre: Point, radii: Point) -> f32 {
    let q = sub(p, centre);
    (length([q[0] / radii[0], q[1] / radii[1]]) - 1.0) * radii[0].min(radii[1])
}

pub(super) fn ring(p: Point, centre: Point, radii: Point, width: f32) -> f32 {
    ellipse(p, centre, radii).abs() - width
}

/// A line from `a` to `b` with round ends.
pub(super) fn capsule(p: Point, a: Point, b: Point, radius: f32) -> f32 {
    let (ap, ab) = (sub(p, a), sub(b, a));
    let along = (dot(ap, ab) / dot(ab, ab)).clamp(0.0, 1.0);
    length([ap[0] - along * ab[0], ap[1] - along * ab[1]]) - radius
}

pub(super) fn rectangle(p: Point, centre: Point, half: Point, rounding: f32) -> f32 {
    let q = sub(p, centre);
    let (x, y) = (q[0].abs() - half[0] + rounding, q[1].abs() - half[1] + rounding);
    length([x.max(0.0), y.max(0.0)]) + x.max(y).min(0.0) - rounding
}

/// The distance to the nearest edge; inside where a ray to the right crosses an odd number of edges.
pub(super) fn polygon(p: Point, corners: &[Point]) -> f32 {
    let (mut nearest, mut inside) = (f32::MAX, false);
    let mut a = corners[corners.len() - 1];
    for &b in corners {
        nearest = nearest.min(capsule(p, a, b, 0.0));
        if (a[1] > p[1]) != (b[1] > p[1]) && p[0] < a[0] + (p[1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) {
            inside = !inside;
        }
        a = b;
    }
    if inside { -nearest } else { nearest }
}

/// Which of an object's paints a point shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Second,
    Dark,
    Light,
}

/// Distance to the object and the paint at (or nearest to) a point.
pub(super) type Hit = (f32, Part);

/// The nearer of two solid parts.
fn union(a: Hit, b: Hit) -> Hit {
    if b.0 < a.0 { b } else { a }
}

/// Paints `part` onto the object wherever `distance` is negative.
fn decal(object: Hit, distance: f32, part: Part) -> Hit {
    if distance < 0.0 { (object.0, part) } else { object }
}

/// What distinguishes two things of one class: three numbers in [0, 1) with a meaning of their own for each class.
pub(super) type Variant = [f32; 3];

fn between(low: f32, high: f32, t: f32) -> f32 {
    low + (high - low) * t
}

/// The object of class `label` (an index into [`super::CLASSES`]).
pub(super) fn object(label: u32, p: Point, variant: Variant) -> Hit {
    match label {
        0 => ball(p, variant),
        1 => cube(p, variant),
        2 => fish(p, variant),
        3 => heart(p, variant),
        4 => house(p, variant),
        5 => key(p, variant),
        6 => moon(p, variant),
        7 => mug(p, variant),
        8 => star(p, variant),
        _ => tree(p, variant),
    }
}

/// A beach ball of six sectors, a ball with a band, or a plain one.
fn ball(p: Point, [kind, offset, _]: Variant) -> Hit {
    let body = (circle(p, [0.0, 0.0], 0.8), Part::Main);
    if kind < 0.4 {
        let q = sub(p, [0.3 * offset, -0.2]);
        let sides = [[1.0, 0.0], [0.5, 0.866], [-0.5, 0.866]].iter().filter(|&&s| dot(q, s) > 0.0).count();
        decal(body, if sides % 2 == 0 { -1.0 } else { 1.0 }, Part::Second)
    } else if kind < 0.7 {
        decal(body, (p[1] - 0.5 * offset * p[0]).abs() - 0.2, Part::Second)
    } else {
        body
    }
}

/// A box seen from above one edge: three faces.
fn cube(p: Point, [depth, height, tape]: Variant) -> Hit {
    let (depth, bottom) = (between(0.3, 0.45, depth), between(0.35, 0.55, height));
    let (top, right) = (-0.4, 0.75);
    let corners =
        [[0.0, top - depth], [right, top], [right, bottom], [0.0, bottom + depth], [-right, bottom], [-right, top]];
    let body = (polygon(p, &corners), Part::Main);
    let below_lid = p[1] - (top + depth * (1.0 - p[0].abs() / right));
    let body = decal(body, -below_lid, Part::Dark);
    let body = decal(body, if p[0] < 0.0 { -below_lid } else { 1.0 }, Part::Second);
    let tape = if tape < 0.5 { (p[1] - top - p[0] * depth / right).abs() - 0.07 } else { 1.0 };
    decal(body, tape.max(below_lid), Part::Light)
}

fn fish(p: Point, [height, tail, fin]: Variant) -> Hit {
    let height = between(0.3, 0.48, height);
    let body = (ellipse(p, [-0.15, 0.0], [0.68, height]), Part::Main);
    let spread = between(0.3, 0.5, tail);
    let tail = (polygon(p, &[[0.35, 0.0], [0.92, -spread], [0.76, 0.0], [0.92, spread]]), Part::Second);
    let back = between(-0.1, 0.25, fin);
    let fin = (polygon(p, &[[-0.35, 0.1 - height], [back, -0.28 - height], [0.2, 0.12 - height]]), Part::Second);
    let whole = union(union(body, tail), fin);
    let whole = decal(whole, circle(p, [-0.52, -0.1], 0.13), Part::Light);
    decal(whole, circle(p, [-0.54, -0.1], 0.07), Part::Dark)
}

fn heart(p: Point, [slim, _, _]: Variant) -> Hit {
    let p = [p[0] * between(0.9, 1.15, slim), p[1]];
    let q = [p[0].abs(), p[1]];
    let lobe = circle(q, [0.36, -0.28], 0.44);
    // From the tip to where its tangents touch the lobes.
    let tip = polygon(p, &[[0.0, 0.82], [0.7, 0.0], [0.36, -0.3], [0.0, -0.2], [-0.36, -0.3], [-0.7, 0.0]]);
    (lobe.min(tip), Part::Main)
}

fn house(p: Point, [pitch, door, chimney]: Variant) -> Hit {
    let walls = (rectangle(p, [0.0, 0.35], [0.58, 0.45], 0.02), Part::Main);
    let ridge = between(-0.9, -0.6, pitch);
    let roof = (polygon(p, &[[-0.82, -0.06], [0.0, ridge], [0.82, -0.06]]), Part::Second);
    let place = if chimney < 0.5 { 0.42 } else { -0.42 };
    let chimney = (rectangle(p, [place, -0.5], [0.1, 0.26], 0.0), Part::Dark);
    let whole = union(union(chimney, roof), walls);
    let door = between(-0.3, 0.05, door);
    let whole = decal(whole, rectangle(p, [door, 0.53], [0.12, 0.27], 0.0), Part::Dark);
    decal(whole, rectangle(p, [door + 0.42, 0.3], [0.13, 0.13], 0.0), Part::Light)
}

fn key(p: Point, [hole, shaft, teeth]: Variant) -> Hit {
    let bow = ring(p, [-0.52, 0.0], [0.3, 0.3], between(0.1, 0.14, hole));
    let end = between(0.7, 0.9, shaft);
    let shaft = capsule(p, [-0.2, 0.0], [end, 0.0], 0.1);
    let long = between(0.2, 0.32, teeth);
    let tooth = |x: f32, long: f32| rectangle(p, [x, long / 2.0], [0.085, long / 2.0 + 0.05], 0.0);
    (bow.min(shaft).min(tooth(end - 0.04, long)).min(tooth(end - 0.34, long * 0.75)), Part::Main)
}

fn moon(p: Point, [thickness, height, _]: Variant) -> Hit {
    let bite = circle(p, [between(0.34, 0.5, thickness), between(-0.15, 0.15, height)], 0.66);
    (circle(p, [-0.05, 0.0], 0.82).max(-bite), Part::Main)
}

fn mug(p: Point, [width, handle, stripe]: Variant) -> Hit {
    let half = between(0.42, 0.54, width);
    let body = rectangle(p, [-0.18, 0.08], [half, 0.64], 0.12);
    let handle = ring(p, [half - 0.16, 0.1], [between(0.28, 0.36, handle), 0.34], 0.085);
    let rim = ellipse(p, [-0.18, -0.54], [half, 0.15]);
    let whole = (body.min(handle).min(rim), Part::Main);
    let stripe = if stripe < 0.5 { ((p[1] - 0.15).abs() - 0.13).max(body) } else { 1.0 };
    let whole = decal(whole, stripe, Part::Second);
    decal(whole, rim + 0.05, Part::Dark)
}

/// Five points; the directions are multiples of 36° from straight up.
fn star(p: Point, [inner, _, _]: Variant) -> Hit {
    const DIRECTIONS: [Point; 10] = [
        [0.0, -1.0],
        [0.587_785, -0.809_017],
        [0.951_057, -0.309_017],
        [0.951_057, 0.309_017],
        [0.587_785, 0.809_017],
        [0.0, 1.0],
        [-0.587_785, 0.809_017],
        [-0.951_057, 0.309_017],
        [-0.951_057, -0.309_017],
        [-0.587_785, -0.809_017],
    ];
    let inner = between(0.36, 0.5, inner);
    let mut corners = DIRECTIONS;
    for (i, corner) in corners.iter_mut().enumerate() {
        let radius = if i % 2 == 0 { 0.95 } else { inner };
        *corner = [corner[0] * radius, corner[1] * radius];
    }
    (polygon(p, &corners), Part::Main)
}

/// A fir of three tiers or a crown of four balls, on a trunk.
fn tree(p: Point, [kind, size, lean]: Variant) -> Hit {
    let trunk = (rectangle(p, [0.0, 0.6], [0.11, 0.34], 0.0), Part::Second);
    let size = between(0.85, 1.1, size);
    let crown = if kind < 0.5 {
        let tier =
            |top: f32, half: f32| polygon(p, &[[0.0, top], [half * size, top + 0.62], [-half * size, top + 0.62]]);
        tier(-0.95, 0.4).min(tier(-0.6, 0.55)).min(tier(-0.2, 0.7))
    } else {
        let lean = between(-0.1, 0.1, lean);
        let bough = |x: f32, y: f32, r: f32| circle(p, [x, y], r * size);
        bough(lean, -0.55, 0.36).min(bough(-0.34, -0.12, 0.38)).min(bough(0.34, -0.15, 0.36)).min(bough(0.0, 0.0, 0.4))
    };
    union(trunk, (crown, Part::Main))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of a grid over [-1.5, 1.5]².
    fn grid() -> impl Iterator<Item = Point> {
        (0..61 * 61).map(|i| [(i % 61) as f32 / 20.0 - 1.5, (i / 61) as f32 / 20.0 - 1.5])
    }

    #[test]
    fn every_object_lies_in_its_square_and_fills_a_fair_part_of_it() {
        for label in 0..10 {
            for variant in [[0.0; 3], [0.3, 0.6, 0.9], [0.99; 3]] {
                let inside: Vec<Point> = grid().filter(|&p| object(label, p, variant).0 < 0.0).collect();
                assert!(inside.iter().flatten().all(|x| x.abs() <= 1.0), "class {label} {variant:?}");
                let area = inside.len() as f32 / 400.0;
                assert!((0.4..3.0).contains(&area), "class {label} {variant:?}: area {area}");
            }
        }
    }

    #[test]
    fn distances_never_jump() {
        let step = 1e-3;
        for label in 0..10 {
            for p in grid() {
                let [here, there] = [p, [p[0] + step, p[1]]].map(|p| object(label, p, [0.2, 0.5, 0.7]).0);
                assert!((here - there).abs() < 3.0 * step, "class {label} at {p:?}: {here} then {there}");
            }
        }
    }

    #[test]
    fn primitives_have_the_distances_of_geometry() {
        let square = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]];
        for (found, expected) in [
            (circle([3.0, 4.0], [0.0, 0.0], 2.0), 3.0),
            (capsule([0.0, 2.0], [-1.0, 0.0], [1.0, 0.0], 0.5), 1.5),
            (rectangle([4.0, 5.0], [0.0, 0.0], [1.0, 1.0], 0.0), 5.0),
            (polygon([0.5, 0.0], &square), -0.5),
            (polygon([4.0, 5.0], &square), 5.0),
            (ring([0.0, 2.0], [0.0, 0.0], [1.0, 1.0], 0.25), 0.75),
        ] {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
