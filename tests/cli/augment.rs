//! `handgrad augment`

use crate::common::{Place, keys};

/// The pixels of a picture.
fn picture(place: &Place, name: &str) -> image::RgbImage {
    image::load_from_memory(&place.read(name)).unwrap().into_rgb8()
}

#[test]
fn training_images_are_drawn_as_the_recipe_changes_them() {
    let place = Place::new();
    let ran = place.done("augment tiny.toml --images 3 --views 2");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("augment.png: ") && lines[1].starts_with("row   1  "), "{ran:?}");
    let first = picture(&place, "augment.png");
    // 16 pixels are drawn ten times as large; what is left and above are names.
    let (left, top) = (first.width() - 3 * 166 - 12, first.height() - 3 * 177);
    let cell = |image: &image::RgbImage, column: u32| -> Vec<[u8; 3]> {
        let left = left + column * 166 + if column > 0 { 12 } else { 0 };
        let places = (0..16).flat_map(|y| (0..16).map(move |x| (x, y)));
        places.map(|(x, y)| image.get_pixel(left + 10 * x, top + 10 * y).0).collect()
    };
    assert_ne!(cell(&first, 0), cell(&first, 1));
    assert_ne!(cell(&first, 1), cell(&first, 2));
    place.done("augment tiny.toml --images 3 --views 2 --out again.png");
    assert_eq!(place.read("again.png"), place.read("augment.png"));
    place.done("augment tiny.toml --images 3 --views 2 --set data.augment=none --out plain.png");
    let plain = picture(&place, "plain.png");
    assert!((0..3).all(|column| cell(&plain, column) == cell(&first, 0)));
    place.done("augment tiny.toml --images 3 --views 2 --seed 1 --out other.png");
    assert_ne!(place.read("other.png"), place.read("augment.png"));
}

#[test]
fn what_a_batch_is_trained_as_is_told() {
    let place = Place::new();
    let args =
        "--json --epoch 2 --set data.augment.mixup=1 --set train.label_smoothing=0.1 --set data.normalise=imagenet";
    let json = place.done(&format!("augment tiny.toml --images 40 {args}")).json();
    assert_eq!(keys(&json), ["epoch", "picture", "rows"]);
    let rows = json["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &json["epoch"]), (32, &2.into()));
    let mut two = 0;
    for row in rows {
        assert_eq!(keys(row), ["class", "sample", "targets"]);
        let views = row["targets"].as_array().unwrap();
        assert_eq!(views.len(), 6);
        for view in views {
            let parts = view.as_array().unwrap();
            assert!(parts.iter().any(|part| part[0] == row["class"] && part[1].as_f64().unwrap() > 0.45), "{row}");
            two += usize::from(parts.len() == 2);
        }
    }
    assert!(two > 32 * 6 / 2, "{two}");
    place.fails("augment tiny.toml --out nowhere/at/all.png", 1, &["nowhere/at/all.png"]);
    place.fails("augment tiny.toml --data none.hgd", 1, &["none.hgd"]);
}
