//! Wrong usage: exit code 2, and a message that says what to do instead.

use crate::common::{Place, TINY};

#[test]
fn wrong_flags_and_names_are_usage_errors_that_name_the_nearest() {
    let place = Place::new();
    for (args, wanted) in [
        ("", &["Usage"][..]),
        ("trian", &["trian", "'train'"]),
        ("train --epoch 3", &["--epoch", "'--epochs'"]),
        ("train tiny.toml --bach 3", &["--bach", "'--batch'"]),
        ("train cifar10-restnet", &["cifar10-restnet", "did you mean `cifar10-resnet`?", "handgrad recipes"]),
        ("plan quikstart", &["quikstart", "did you mean `quickstart`?"]),
        ("bench cifar10-simplnet", &["did you mean `cifar10-simplenet`?"]),
        ("summary cifar10-convnet3", &["did you mean `cifar10-convnet"]),
        ("train tiny.toml --set optimizer.momentun=0.5", &["--set", "momentun", "did you mean `momentum`?"]),
        ("train tiny.toml --set optimiser.momentum=0.5", &["--set", "did you mean `optimizer`?"]),
        ("train tiny.toml --set data.batch", &["--set", "key=value"]),
        ("train tiny.toml --set phase.4.lr=1", &["--set", "phase.4.lr", "1 entries"]),
        ("train tiny.toml --set data.size=0", &["--set", "data.size", "from 1 to"]),
        ("train tiny.toml --set model.name=convnet9", &["convnet9", "convnet2"]),
        ("train tiny.toml --set model.dropout=0.5", &["dropout", "hint"]),
        ("train tiny.toml --batch 0", &["--batch", "0", "from 1 to"]),
        ("train tiny.toml --batch many", &["--batch", "many", "whole number"]),
        ("train tiny.toml --batch 4294967297", &["--batch", "4294967297"]),
        ("train tiny.toml --batch=", &["--batch"]),
        ("train tiny.toml --seed=", &["--seed"]),
        ("train tiny.toml --seed=-1", &["--seed", "-1"]),
        ("train tiny.toml --seed 99999999999999999999", &["--seed", "a whole number"]),
        ("train tiny.toml --epochs 0", &["--epochs", "from 1 to"]),
        ("train tiny.toml --epochs 4294967296", &["--epochs"]),
        ("train tiny.toml --threads 0", &["--threads", "1 to 1024"]),
        ("train tiny.toml --threads 99999", &["--threads", "1 to 1024"]),
        ("train tiny.toml --precision bf16", &["--precision", "bf16", "f32"]),
        ("train tiny.toml --precision int8", &["int8", "f32"]),
        ("train tiny.toml --precision f23", &["f23", "f32"]),
        ("bench tiny.toml --precision bf16", &["--precision", "bf16", "f32"]),
        ("train tiny.toml --backend cuda:first", &["--backend", "cuda:N"]),
        ("bench tiny.toml --backend cuda:", &["--backend", "cuda:N"]),
        ("train tiny.toml --backend gpu", &["--backend", "reference, cpu or cuda[:N]"]),
        ("train tiny.toml --other-simd", &["--resume"]),
        ("train --resume --out nowhere", &["nowhere", "no run to resume", "leave out --resume"]),
        ("train tiny.toml --resume", &["runs/tiny", "no run to resume"]),
        ("train cifar10-resnet", &["cifar10", "--data FILE.hgd", "data-tools"]),
        ("bench tiny.toml --seconds 0", &["--seconds"]),
        ("bench tiny.toml --seconds nan", &["--seconds"]),
        ("bench tiny.toml --batch 0", &["batch"]),
        ("bench tiny.toml --size 0", &["size"]),
        ("bench tiny.toml --warm-up 0", &["--warm-up", "1..=1000000"]),
        ("bench tiny.toml --lr=-1", &["--lr", "from 0"]),
        ("bench tiny.toml --lr nan", &["--lr", "from 0"]),
        ("bench tiny.toml --set model.acts=mish", &["model.acts", "unknown key"]),
        ("bench tiny.toml --compare cpu", &["--compare", "two or more"]),
        ("bench tiny.toml --compare cpu,gpu", &["--compare", "gpu", "cuda[:N]"]),
        ("bench tiny.toml --compare cpu,reference --layers", &["--compare", "--layers"]),
        ("plan tiny.toml --batch 0", &["batch"]),
        ("plan tiny.toml --size 99999999999", &["size"]),
        ("augment tiny.toml --epoch 0", &["--epoch", "1.."]),
        ("augment tiny.toml --images 0", &["--images", "1..=200"]),
        ("augment tiny.toml --views 51", &["--views", "1..=50"]),
        ("augment tiny.toml --seed=-1", &["--seed", "-1"]),
        ("augment tiny.toml --set data.augment.mixup=-1", &["data.augment.mixup", "from 0 up to 100"]),
        ("plan tiny.toml --mode fast", &["--mode", "train, eval, infer"]),
    ] {
        place.fails(args, 2, wanted);
    }
    // Nothing of all this left a run, or a folder, behind.
    assert!(!place.path("runs").exists() || place.list("runs").is_empty());
}

#[test]
fn a_simd_level_that_does_not_exist_is_named() {
    let place = Place::new();
    let mut command = place.command(["train", "tiny.toml"]);
    command.env("HANDGRAD_SIMD", "avx3");
    let ran = crate::common::finish(command);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.says(&["HANDGRAD_SIMD", "avx3", "portable, avx2 or avx512"]);
    assert!(!place.path("runs/tiny").exists());
}

/// Who has no data is told the two commands that make it.
#[test]
fn a_dataset_that_is_not_there_comes_with_the_commands_that_make_it() {
    let place = Place::new();
    let commands = |name: &str, archive: &str| {
        format!("`data-tools fetch {name}`, then `data-tools convert {archive} {name}.hgd`")
    };
    for (name, archive) in [
        ("imagewoof2-320", "imagewoof2-320.tgz"),
        ("imagenette2-160", "imagenette2-160.tgz"),
        ("imagenette2-320", "imagenette2-320.tgz"),
        ("cifar10", "cifar-10-binary.tar.gz"),
    ] {
        let wanted = [name, "HANDGRAD_DATA", &commands(name, archive)];
        place.fails(&format!("train woof-xse_resnext18 --set data.dataset={name}"), 2, &wanted);
    }
    let woof = commands("imagewoof2-320", "imagewoof2-320.tgz");
    place.fails("train woof-xresnet50-twist-published", 2, &[&woof]);
    place.fails("lr-find woof-xse_resnext18-deep", 2, &[&woof]);
    place.fails("train cifar10-resnet", 2, &[&commands("cifar10", "cifar-10-binary.tar.gz")]);
    // A dataset of one's own has no archive.
    place.fails("train tiny.toml --set data.dataset=mine", 2, &["`data-tools convert FOLDER mine.hgd`", "cifar10"]);
    // A folder without it is no help either.
    let mut command = place.command(["train", "woof-xse_resnext18"]);
    command.env("HANDGRAD_DATA", place.path(""));
    let ran = crate::common::finish(command);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.says(&[&woof]);
    assert!(!place.path("runs").exists() || place.list("runs").is_empty());
}

#[test]
fn wrong_recipe_files_are_named_with_their_line() {
    let place = Place::new();
    place.fails("train missing.toml", 1, &["missing.toml", "hint"]);
    place.fails("train .", 2, &["recipe"]);
    for (text, wanted) in [
        ("", &["bad.toml", "missing"][..]),
        ("title = ", &["bad.toml:1"]),
        (&TINY.replace("lr = 0.01", "lr = -1"), &["bad.toml:11", "phase.0.lr", "above 0"]),
        (&TINY.replace("epochs", "epocs"), &["bad.toml:12", "phase.0.epocs", "did you mean `epochs`?"]),
        (&TINY.replace("[[phase]]", "[phase]"), &["[[phase]]"]),
        (&format!("{TINY}[train]\nprecision = \"bf16\""), &["precision", "bf16", "f32"]),
        (&format!("{TINY}[optimizer]\n[[optimizer.group]]\npattern = \"heda.*\""), &["heda.*", "no parameter"]),
    ] {
        place.write("bad.toml", text);
        let ran = place.run("train bad.toml --epochs 1");
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{text}\n{ran:?}");
        ran.says(wanted);
        assert!(!place.path("runs/bad").exists());
    }
    std::fs::write(place.path("bad.toml"), [0xff, 0xfe, 0]).unwrap();
    place.fails("train bad.toml", 2, &["bad.toml", "UTF-8"]);
    std::fs::write(place.path("bad.toml"), vec![b'\n'; (1 << 20) + 1]).unwrap();
    place.fails("train bad.toml", 2, &["bad.toml", "1 MiB"]);
}
