//! Weights to begin with: a model file's, or a state dict that another program wrote, with PyTorch's names and no graph.

use std::collections::BTreeSet;
use std::path::Path;

use super::header::{Header, Tensor};
use super::key;
use super::read::ModelFile;
use super::tensors::{Tensors, open};
use crate::backend::Real;
use crate::graph::Graph;
use crate::params::{ParamInfo, Params};
use crate::{Error, ErrorKind, Result};

/// The most names that an error lists of one kind.
const LISTED: usize = 4;
/// How often a batch-norm was trained: PyTorch counts it, and nothing here needs it.
const COUNTER: &str = ".num_batches_tracked";
/// What DataParallel puts before every name.
const WRAPPED: &str = "module.";

/// Weights and statistics for a model that is built already: those of a file that handgrad wrote, or a state dict.
///
/// The tensors of a state dict bear the names of a PyTorch model that [`models`](crate::models) has: torchvision's (and
/// timm's) for ResNets, fastai's for XResNets, or timm's of its resnet18d and the like for these. F16, BF16, F32 and F64
/// are read.
pub struct Weights {
    tensors: Tensors,
}

/// Opens a file of weights of either kind. A model file is checked as [`load`](super::load) does; of a state dict, length,
/// names and places of all tensors are.
///
/// # Errors
/// As [`load`](super::load).
pub fn load_weights(path: impl AsRef<Path>) -> Result<Weights> {
    let path = path.as_ref();
    let tensors = Tensors::read(open(path)?, &path.display().to_string())?;
    if tensors.header.metadata.keys().any(|name| name.starts_with(key::OWN)) {
        return Ok(Weights { tensors: ModelFile::of(tensors)?.into_tensors() });
    }
    Ok(Weights { tensors })
}

impl Weights {
    /// Sets all parameters and state of a model with this graph to the file's; with `new_head`, all but those of the last
    /// linear layer, which stay as they are and may have any shape in the file, or be absent.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`], naming the first of them, where tensors are missing, unexpected or of other shapes;
    /// [`ErrorKind::Usage`] for a new head of a graph without a linear layer; [`ErrorKind::Io`] where reading fails.
    pub fn fill<E: Real>(&self, graph: &Graph, params: &mut Params<E>, new_head: bool) -> Result<()> {
        let tensors = &self.tensors;
        let head: Vec<String> = graph.head_params().map(str::to_owned).collect();
        if new_head && head.is_empty() {
            let e = Error::new(ErrorKind::Usage, "new head", "a network without a linear layer");
            return Err(e.expected("one whose last linear layer can begin anew"));
        }
        let names = Names::of(&tensors.header, params);
        let infos = params.table().iter().chain(params.state_table());
        let all: Vec<Pair> = infos.map(|info| (info.clone(), names.in_file(&info.name))).collect();
        let wanted: Vec<&Pair> = all.iter().filter(|(info, _)| !new_head || !head.contains(&info.name)).collect();
        let known = all.iter().map(|(_, name)| name.as_str()).collect();
        Fit::of(&tensors.header, &wanted, &known).check(&tensors.subject, &head)?;
        for (info, name) in wanted {
            params.set_from_torch(&info.name, &tensors.values(&tensors.header.tensors[name])?)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("subject", &self.tensors.subject).finish_non_exhaustive()
    }
}

/// A parameter or state, and its name in the file.
type Pair = (ParamInfo, String);

/// What a file calls the parameters of a model.
struct Names {
    prefix: &'static str,
    timm: bool,
}

impl Names {
    fn of<E: Real>(header: &Header, params: &Params<E>) -> Self {
        const STEM: &str = "conv1.0.weight";
        let wrapped = !header.tensors.is_empty() && header.tensors.keys().all(|name| name.starts_with(WRAPPED));
        let prefix = if wrapped { WRAPPED } else { "" };
        let ours = params.table().iter().any(|info| info.name == STEM);
        Names { prefix, timm: !ours && header.tensors.contains_key(&format!("{prefix}{STEM}")) }
    }

    fn in_file(&self, name: &str) -> String {
        let theirs = if self.timm { timm(name) } else { None };
        format!("{}{}", self.prefix, theirs.as_deref().unwrap_or(name))
    }
}

/// What timm's resnet18d, 34d, 50d… call a parameter of fastai's XResNet; the nets are the same.
///
/// ```text
/// 0.0, 1.0, 2.0                   conv1.0, conv1.3, conv1.6
/// 0.1, 1.1, 2.1                   conv1.1, conv1.4, bn1
/// 4.b.convpath.i.0, .1            layer1.b.conv(i + 1), .bn(i + 1)
/// 4.b.idpath.(0 or 1).0, .1       layer1.b.downsample.1, .2
/// the last linear layer           fc
/// ```
fn timm(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let number = |text: &str| text.parse::<usize>().ok();
    Some(match parts[..] {
        ["2", "1", last] => format!("bn1.{last}"),
        [i @ ("0" | "1" | "2"), part, last] => format!("conv1.{}.{last}", 3 * number(i)? + number(part)?),
        [stage, block, "convpath", i, part, last] => {
            let kind = if part == "0" { "conv" } else { "bn" };
            format!("layer{}.{block}.{kind}{}.{last}", number(stage)?.checked_sub(3)?, number(i)? + 1)
        }
        [stage, block, "idpath", _, part, last] => {
            format!("layer{}.{block}.downsample.{}.{last}", number(stage)?.checked_sub(3)?, number(part)? + 1)
        }
        [_, last] => format!("fc.{last}"),
        _ => return None,
    })
}

/// How a file's tensors fit a model.
#[derive(Default)]
struct Fit {
    wanted: usize,
    missing: Vec<String>,
    unexpected: Vec<String>,
    /// The parameter's name here, and what is wrong.
    shaped: Vec<(String, String)>,
}

impl Fit {
    /// `known`: the names that the file may have.
    fn of(header: &Header, pairs: &[&Pair], known: &BTreeSet<&str>) -> Self {
        let mut fit = Fit { wanted: pairs.len(), ..Fit::default() };
        for (info, name) in pairs {
            let shape = info.layout.torch_shape();
            match header.tensors.get(name) {
                None => fit.missing.push(name.clone()),
                Some(tensor) if tensor.dtype.is_integer() => {
                    fit.shaped.push((info.name.clone(), format!("{name} of integers")));
                }
                Some(Tensor { shape: found, .. }) if !found.iter().copied().eq(shape.iter().map(|&d| d as u64)) => {
                    fit.shaped.push((info.name.clone(), format!("{name} {found:?} instead of {shape:?}")));
                }
                Some(_) => {}
            }
        }
        let foreign = |name: &&String| {
            !known.contains(name.as_str()) && !name.ends_with(COUNTER) && !name.starts_with(key::EXTRA)
        };
        fit.unexpected = header.tensors.keys().filter(foreign).cloned().collect();
        fit
    }

    fn check(&self, subject: &str, head: &[String]) -> Result<()> {
        let shaped: Vec<String> = self.shaped.iter().map(|(_, what)| what.clone()).collect();
        let found: Vec<String> =
            [("missing", &self.missing), ("unexpected", &self.unexpected), ("of another shape or type", &shaped)]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| list(what, names))
                .collect();
        if found.is_empty() {
            return Ok(());
        }
        let of_head = self.missing.is_empty() && self.unexpected.is_empty();
        let of_head = of_head && self.shaped.iter().all(|(name, _)| head.contains(name));
        let hint = if of_head {
            "it was trained for other classes: --new-head starts the last layer anew (or model.classes gives the network \
             as many outputs as the file's)"
        } else {
            "the file is of another model, or bears other names: docs/models.md lists those that are known"
        };
        let e = Error::new(ErrorKind::Shape, subject, found.join("; "));
        Err(e.expected(format!("the {} tensors of the model, by name and shape", self.wanted)).hint(hint))
    }
}

/// `3 tensors are missing (a, b, c)`.
fn list(what: &str, names: &[String]) -> String {
    let verb = if names.len() == 1 { "tensor is" } else { "tensors are" };
    let more = if names.len() > LISTED { ", …" } else { "" };
    let shown = &names[..names.len().min(LISTED)];
    format!("{} {verb} {what} ({}{more})", names.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::timm;

    #[test]
    fn timms_names_of_an_xresnet() {
        for (ours, theirs) in [
            ("0.0.weight", "conv1.0.weight"),
            ("1.1.running_mean", "conv1.4.running_mean"),
            ("2.0.weight", "conv1.6.weight"),
            ("2.1.bias", "bn1.bias"),
            ("4.0.convpath.0.0.weight", "layer1.0.conv1.weight"),
            ("7.2.convpath.2.1.running_var", "layer4.2.bn3.running_var"),
            ("4.0.idpath.0.0.weight", "layer1.0.downsample.1.weight"),
            ("5.0.idpath.1.1.weight", "layer2.0.downsample.2.weight"),
            ("11.bias", "fc.bias"),
        ] {
            assert_eq!(timm(ours).as_deref(), Some(theirs));
        }
        assert_eq!(timm("4.0.convpath.2.layers.1.0.weight"), None);
        assert_eq!(timm("0.0.idpath.0.0.weight"), None);
    }
}
