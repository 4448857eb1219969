//! Writing a model file.

use std::collections::BTreeMap;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::header::{Dtype, Header, Tensor};
use super::{ModelInfo, VERSION, key};
use crate::backend::Real;
use crate::graph::Graph;
use crate::io::atomic::AtomicFile;
use crate::params::Params;
use crate::{Error, ErrorKind, Result};

/// What a checkpoint holds besides the model: named tensors and texts.
///
/// Names lie in a space of their own: they never collide with those of parameters.
#[derive(Clone, Debug, Default)]
pub struct Extra<'a, E> {
    /// Numbers, such as an optimizer's moments.
    pub values: BTreeMap<String, &'a [E]>,
    /// Integers, such as positions.
    pub counters: BTreeMap<String, Vec<u64>>,
    /// Texts.
    pub texts: BTreeMap<String, String>,
}

/// The bytes behind one tensor of the header.
enum Content<'a, E> {
    /// A parameter or state of this name.
    Param(&'a str),
    Values(&'a [E]),
    Counters(&'a [u64]),
}

/// Writes a model, and perhaps more, to a file: whole or not at all.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.safetensors");
/// use handgrad::io::model_file::{self, Extra, ModelInfo, Preprocessing};
/// use handgrad::{Params, models, rng::Key};
/// let graph = models::build("convnet2", &models::ModelOptions { classes: 2, ..Default::default() })?;
/// let params = Params::<f32>::new(&graph, Key::new(1))?;
/// let preprocessing = Preprocessing::new((32, 32), [0.5; 3], [0.25; 3]);
/// let info = ModelInfo::new(["cat", "dog"], preprocessing);
/// model_file::save(&path, &graph, &params, &info, &Extra::default())?;
/// let file = model_file::load(&path)?;
/// assert_eq!(file.info().classes, ["cat", "dog"]);
/// assert_eq!(file.params::<f32>()?.values(), params.values());
/// # Ok::<(), handgrad::Error>(())
/// ```
///
/// # Errors
/// Kind [`ErrorKind::Shape`] where parameters or information do not fit the graph, [`ErrorKind::Io`] where the file
/// cannot be written.
pub fn save<E: Real>(
    path: impl AsRef<Path>,
    graph: &Graph,
    params: &Params<E>,
    info: &ModelInfo,
    extra: &Extra<'_, E>,
) -> Result<()> {
    let path = path.as_ref();
    let subject = path.display().to_string();
    info.check(graph, &subject)?;
    check_params(graph, params, &subject)?;
    if let Some(name) = extra.counters.keys().find(|name| extra.values.contains_key(*name)) {
        let e =
            Error::new(ErrorKind::Usage, subject, format!("extra values and extra counters are both called {name}"));
        return Err(e.expected("a name of its own for each"));
    }
    let mut header = Header { metadata: metadata(graph, info, extra, &subject)?, tensors: BTreeMap::new() };
    let contents = place(&mut header, params, extra);
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut file = AtomicFile::create(path)?;
    let mut hash = header.checksum();
    {
        let mut writer = BufWriter::with_capacity(1 << 16, file.file());
        // The checksum, known at the end, takes the place of this one.
        writer.write_all(&header.to_bytes(&subject)?).map_err(io)?;
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            writer.write_all(bytes).map_err(io)
        };
        for content in contents {
            match content {
                Content::Param(name) => put_values(&params.to_torch(name).unwrap_or_default(), &mut put)?,
                Content::Values(values) => put_values(values, &mut put)?,
                Content::Counters(counters) => counters.iter().try_for_each(|n| put(&n.to_le_bytes()))?,
            }
        }
        header.metadata.insert(key::CHECKSUM.into(), format!("{:016x}", hash.digest()));
        writer.seek(SeekFrom::Start(0)).map_err(io)?;
        writer.write_all(&header.to_bytes(&subject)?).map_err(io)?;
        writer.flush().map_err(io)?;
    }
    file.commit()
}

fn check_params<E: Real>(graph: &Graph, params: &Params<E>, subject: &str) -> Result<()> {
    let of_graph = graph.params().iter().chain(graph.states());
    let given = params.table().iter().chain(params.state_table());
    if of_graph.map(|p| (&p.name, &p.spec.layout)).eq(given.clone().map(|info| (&info.name, &info.layout))) {
        return match given.map(|info| &info.name).find(|name| name.starts_with(key::EXTRA)) {
            Some(name) => Err(Error::new(ErrorKind::Usage, subject, format!("a parameter called {name}"))
                .expected(format!("a name that does not begin with {}", key::EXTRA))),
            None => Ok(()),
        };
    }
    let e = Error::new(ErrorKind::Shape, subject, "parameters of another graph");
    Err(e.expected("the parameters that the graph names, in its order"))
}

fn metadata<E>(
    graph: &Graph,
    info: &ModelInfo,
    extra: &Extra<'_, E>,
    subject: &str,
) -> Result<BTreeMap<String, String>> {
    let json = |text: serde_json::Result<String>| text.map_err(|e| Error::new(ErrorKind::Format, subject, e));
    let mut metadata: BTreeMap<String, String> =
        extra.texts.iter().map(|(name, text)| (format!("{}{name}", key::EXTRA), text.clone())).collect();
    for (name, text) in [
        (key::VERSION, VERSION.to_string()),
        (key::PROGRAM, env!("CARGO_PKG_VERSION").into()),
        (key::GRAPH, graph.to_json()),
        (key::CLASSES, json(serde_json::to_string(&info.classes))?),
        (key::PREPROCESSING, json(serde_json::to_string(&info.preprocessing))?),
        (key::NOTES, json(serde_json::to_string(&info.notes))?),
        (key::CHECKSUM, format!("{:016x}", 0)),
    ] {
        metadata.insert(name.into(), text);
    }
    Ok(metadata)
}

/// Gives every tensor its place in the header: those of 8-byte elements first, so that all are aligned.
fn place<'a, E: Real>(header: &mut Header, params: &'a Params<E>, extra: &'a Extra<'_, E>) -> Vec<Content<'a, E>> {
    let float = if size_of::<E>() == 8 { Dtype::F64 } else { Dtype::F32 };
    let mut contents = Vec::new();
    let mut end = 0;
    let mut add = |name: String, dtype: Dtype, shape: Vec<u64>, content: Content<'a, E>| {
        let start = end;
        end += shape.iter().product::<u64>() * dtype.bytes() as u64;
        header.tensors.insert(name, Tensor { dtype, shape, data_offsets: (start, end) });
        contents.push(content);
    };
    for (name, counters) in &extra.counters {
        let shape = vec![counters.len() as u64];
        add(format!("{}{name}", key::EXTRA), Dtype::U64, shape, Content::Counters(counters));
    }
    for info in params.table().iter().chain(params.state_table()) {
        let shape = info.layout.torch_shape().into_iter().map(|d| d as u64).collect();
        add(info.name.clone(), float, shape, Content::Param(&info.name));
    }
    for (name, values) in &extra.values {
        let name = format!("{}{name}", key::EXTRA);
        add(name, float, vec![values.len() as u64], Content::Values(values));
    }
    contents
}

fn put_values<E: Real>(values: &[E], put: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut block = Vec::with_capacity(8 << 10);
    for values in values.chunks(1 << 10) {
        block.clear();
        for value in values {
            match size_of::<E>() {
                8 => block.extend(value.wide().to_le_bytes()),
                _ => block.extend((value.wide() as f32).to_le_bytes()),
            }
        }
        put(&block)?;
    }
    Ok(())
}
