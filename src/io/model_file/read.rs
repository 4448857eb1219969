//! Reading a model file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::header::{Dtype, Header, Tensor};
use super::tensors::{BLOCK, Tensors, open};
use super::{ModelInfo, VERSION, key};
use crate::backend::Real;
use crate::graph::Graph;
use crate::params::{ParamInfo, Params};
use crate::{Error, ErrorKind, Result};

/// The longest text of a graph: thousands of layers.
const MAX_GRAPH: usize = 1 << 20;

/// An open model file: its graph and information; tensors are read when asked for.
pub struct ModelFile {
    tensors: Tensors,
    graph: Graph,
    info: ModelInfo,
}

/// Opens a model file and checks all of it, weights included.
///
/// # Errors
/// Kind [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::Format`] if it is no model or damaged,
/// [`ErrorKind::Shape`] if its tensors do not fit its graph, [`ErrorKind::Unsupported`] if its version is another one.
pub fn load(path: impl AsRef<Path>) -> Result<ModelFile> {
    let path = path.as_ref();
    ModelFile::of(Tensors::read(open(path)?, &path.display().to_string())?)
}

impl ModelFile {
    /// A model file that lies in memory, such as one that is built into a program.
    ///
    /// # Errors
    /// As [`load`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Self> {
        ModelFile::of(Tensors::read(Cursor::new(bytes), "model in memory")?)
    }

    /// Checks everything behind the header.
    pub(super) fn of(tensors: Tensors) -> Result<Self> {
        let Tensors { subject, header, .. } = &tensors;
        let (graph, info) = describe(header, subject)?;
        check_tensors(header, &graph, subject)?;
        check_sum(&tensors)?;
        Ok(ModelFile { tensors, graph, info })
    }

    pub(super) fn into_tensors(self) -> Tensors {
        self.tensors
    }

    /// The model's graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Class names, preprocessing, notes.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Where the file lies: what errors call it.
    pub fn subject(&self) -> &str {
        &self.tensors.subject
    }

    /// The version of handgrad that wrote it.
    pub fn program(&self) -> &str {
        self.tensors.header.metadata.get(key::PROGRAM).map_or("", String::as_str)
    }

    /// The type of its weights.
    pub fn dtype(&self) -> Dtype {
        let of = |param: &crate::graph::Param| self.tensors.header.tensors.get(&param.name).map(|tensor| tensor.dtype);
        self.graph.params().iter().find_map(of).unwrap_or(Dtype::F32)
    }

    /// The model's parameters and state, in `E`'s precision: bit for bit where that is the file's.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Io`] where reading fails, [`ErrorKind::Unsupported`] where memory is too small.
    pub fn params<E: Real>(&self) -> Result<Params<E>> {
        let mut params = Params::zeros(&self.graph)?;
        self.fill(&mut params)?;
        Ok(params)
    }

    /// Sets all parameters and state of a model (an engine's, say) to the file's.
    ///
    /// # Errors
    /// As [`ModelFile::params`], and kind [`ErrorKind::Shape`] where the file's model is another one.
    pub fn fill<E: Real>(&self, params: &mut Params<E>) -> Result<()> {
        let of_file = self.graph.params().len() + self.graph.states().len();
        let wanted: Vec<ParamInfo> = params.table().iter().chain(params.state_table()).cloned().collect();
        if wanted.len() != of_file {
            let e = Error::new(ErrorKind::Shape, &self.tensors.subject, format!("{of_file} parameters and states"));
            return Err(e.expected(wanted.len()).hint("the file is of another model"));
        }
        for ParamInfo { name, layout, .. } in wanted {
            let tensor = self.tensors.header.tensors.get(&name);
            let tensor = tensor.ok_or_else(|| missing(&self.tensors.subject, &name, &layout.torch_shape()))?;
            check_shape(&self.tensors.subject, &name, tensor, &layout.torch_shape())?;
            params.set_from_torch(&name, &self.tensors.values(tensor)?)?;
        }
        Ok(())
    }

    /// The names of extra tensors and of extra texts.
    pub fn extras(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.header.tensors.keys().chain(self.tensors.header.metadata.keys());
        names.filter_map(|name| name.strip_prefix(key::EXTRA))
    }

    /// An extra text, if there is one of this name.
    pub fn extra_text(&self, name: &str) -> Option<&str> {
        self.tensors.header.metadata.get(&format!("{}{name}", key::EXTRA)).map(String::as_str)
    }

    /// An extra tensor of numbers, in `E`'s precision.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Format`] where the file has none of this name, [`ErrorKind::Io`] where reading fails.
    pub fn extra_values<E: Real>(&self, name: &str) -> Result<Vec<E>> {
        match self.extra(name)? {
            tensor if tensor.dtype.is_integer() => Err(self.other_type(name, "integers", "floating-point numbers")),
            tensor => self.tensors.values(tensor),
        }
    }

    /// An extra tensor of counters.
    ///
    /// # Errors
    /// As [`ModelFile::extra_values`].
    pub fn extra_counters(&self, name: &str) -> Result<Vec<u64>> {
        match self.extra(name)? {
            tensor @ Tensor { dtype: Dtype::U64, .. } => self.tensors.elements(tensor, u64::from_le_bytes),
            _ => Err(self.other_type(name, "floating-point numbers", "U64")),
        }
    }

    fn extra(&self, name: &str) -> Result<&Tensor> {
        let name = format!("{}{name}", key::EXTRA);
        self.tensors.header.tensors.get(&name).ok_or_else(|| {
            let e = Error::new(ErrorKind::Format, &self.tensors.subject, format!("no tensor {name}"));
            e.hint("a checkpoint has it, a model file need not")
        })
    }

    fn other_type(&self, name: &str, found: &str, expected: &str) -> Error {
        let name = format!("tensor {}{name} holds {found}", key::EXTRA);
        Error::new(ErrorKind::Format, &self.tensors.subject, name).expected(expected)
    }
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFile")
            .field("subject", &self.tensors.subject)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// The graph and the information in a header.
fn describe(header: &Header, subject: &str) -> Result<(Graph, ModelInfo)> {
    let text = |name: &str| {
        header.metadata.get(name).ok_or_else(|| {
            let e = Error::new(ErrorKind::Format, subject, format!("no {name} in the metadata"));
            e.hint("the file was not written by handgrad; docs/models.md tells how to make it one")
        })
    };
    let version = text(key::VERSION)?;
    if *version != VERSION.to_string() {
        let e = Error::new(ErrorKind::Unsupported, subject, format!("format version {version:?}"));
        return Err(e.expected(VERSION).hint("another version of handgrad wrote it"));
    }
    let own = |name: &&String| name.starts_with(key::OWN) && !key::ALL.contains(&name.as_str());
    if let Some(name) = header.metadata.keys().find(own) {
        return Err(Error::new(ErrorKind::Format, subject, format!("unknown metadata {name}")));
    }
    let graph = text(key::GRAPH)?;
    if graph.len() > MAX_GRAPH {
        let e = Error::new(ErrorKind::Format, subject, format!("a graph of {} bytes", graph.len()));
        return Err(e.expected(format!("at most {MAX_GRAPH}")));
    }
    let within = |e: Error| Error::new(e.kind(), subject, e);
    let graph = Graph::from_json(graph).map_err(within)?;
    let info = ModelInfo {
        classes: parse(text(key::CLASSES)?, key::CLASSES, subject)?,
        preprocessing: parse(text(key::PREPROCESSING)?, key::PREPROCESSING, subject)?,
        notes: header.metadata.get(key::NOTES).map_or(Ok(BTreeMap::new()), |text| parse(text, key::NOTES, subject))?,
    };
    info.check(&graph, subject)?;
    Ok((graph, info))
}

fn parse<T: DeserializeOwned>(text: &str, name: &str, subject: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::new(ErrorKind::Format, subject, format!("{name}: {e}")))
}

/// Every parameter and state of the graph has its tensor, and there is no other. This comes before any memory is
/// reserved for them: what a graph claims is bounded by what the file holds.
fn check_tensors(header: &Header, graph: &Graph, subject: &str) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for param in graph.params().iter().chain(graph.states()) {
        let shape = param.spec.layout.torch_shape();
        let twice = !wanted.insert(param.name.as_str());
        if twice || param.name.starts_with(key::EXTRA) {
            let found = format!("the name {} is taken", param.name);
            return Err(Error::new(ErrorKind::Shape, subject, found).expected("a name of its own for each parameter"));
        }
        match header.tensors.get(&param.name) {
            Some(tensor) if tensor.dtype.is_integer() => {
                let e = Error::new(ErrorKind::Format, subject, format!("tensor {} holds integers", param.name));
                return Err(e.expected("floating-point numbers"));
            }
            Some(tensor) => check_shape(subject, &param.name, tensor, &shape)?,
            None => return Err(missing(subject, &param.name, &shape)),
        }
    }
    let unknown = header.tensors.keys().find(|name| !name.starts_with(key::EXTRA) && !wanted.contains(name.as_str()));
    match unknown {
        Some(name) => {
            let e = Error::new(ErrorKind::Shape, subject, format!("a tensor {name} that its graph does not use"));
            Err(e.hint("graph and weights are of different models"))
        }
        None => Ok(()),
    }
}

fn missing(subject: &str, name: &str, shape: &[usize]) -> Error {
    let e = Error::new(ErrorKind::Shape, subject, format!("no tensor {name}"));
    e.expected(format!("one of shape {shape:?}")).hint("graph and weights are of different models")
}

fn check_shape(subject: &str, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.shape.iter().copied().eq(shape.iter().map(|&d| d as u64)) {
        return Ok(());
    }
    let e = Error::new(ErrorKind::Shape, subject, format!("tensor {name} of shape {:?}", tensor.shape));
    Err(e.expected(format!("{shape:?}")).hint("graph and weights are of different models"))
}

/// Compares the checksum with the content.
fn check_sum(tensors: &Tensors) -> Result<()> {
    let Tensors { subject, header, .. } = tensors;
    let Some(expected) = header.metadata.get(key::CHECKSUM) else {
        return Err(Error::new(ErrorKind::Format, subject, format!("no {} in the metadata", key::CHECKSUM)));
    };
    if expected == key::UNCHECKED {
        return Ok(());
    }
    let mut hash = header.checksum();
    let mut source = tensors.at(0)?;
    let mut block = vec![0; BLOCK];
    loop {
        match source.read(&mut block).map_err(|e| Error::io(subject, &e))? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let found = format!("{:016x}", hash.digest());
    if found == *expected {
        return Ok(());
    }
    let e = Error::new(ErrorKind::Format, subject, "the checksum does not fit the content");
    Err(e.hint(format!(
        "the file is damaged; if another program changed it on purpose, let it set the metadata {} to {:?}",
        key::CHECKSUM,
        key::UNCHECKED
    )))
}
