//! A model that predicts.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayView3, Axis};

use super::session::{Runner, Session};
use super::{Device, Prediction, framed};
use crate::backend::{Backend as _, Cpu, Real};
use crate::graph::Graph;
use crate::io::model_file::{self, ModelFile, ModelInfo};
use crate::params::Params;
use crate::plan::{Arena, Plan};
use crate::resample::Framing;
use crate::{Error, ErrorKind, Result};

/// Idle batch-1 memories that [`Model::predict`] keeps for later calls.
const KEPT: usize = 8;

/// A trained classifier. Clones share the weights; any number of threads may use it at once.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub graph: Graph,
    pub info: ModelInfo,
    pub params: Params<f32>,
    /// The normalised value of every byte, per channel.
    pub pixels: [[f32; 256]; 3],
    idle: Mutex<Vec<Runner>>,
    /// What the first session prepared of the weights, for all that follow.
    prepared: Mutex<Option<Arc<Arena<f32>>>>,
}

impl Inner {
    /// The weights as the kernels of an inference plan read them: the same for any batch.
    pub fn prepared(&self, plan: &Plan) -> Result<Arc<Arena<f32>>> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*prepared {
            return Ok(Arc::clone(prepared));
        }
        let new = Arc::new(plan.prepare::<Cpu>(&self.params)?);
        *prepared = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl Model {
    /// Loads a model file.
    ///
    /// # Errors
    /// Those of [`model_file::load`], and kind [`ErrorKind::Unsupported`] where memory is too small.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Model::from_file(&model_file::load(path)?)
    }

    /// A model file that lies in memory: `Model::from_bytes(include_bytes!("model.safetensors"))`.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Self> {
        Model::from_file(&ModelFile::from_bytes(bytes)?)
    }

    /// The model of an open file.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_file(file: &ModelFile) -> Result<Self> {
        let mut params = Params::without_grads(file.graph())?;
        file.fill(&mut params)?;
        Model::new(file.graph().clone(), params, file.info().clone(), file.subject())
    }

    /// A model of parts that a program has at hand, such as those of an [`Engine`](crate::engine::Engine) that has
    /// just been trained: the parameters are copied, and rounded to f32.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where the parts do not fit each other.
    pub fn from_parts<E: Real>(graph: &Graph, params: &Params<E>, info: ModelInfo) -> Result<Self> {
        let mut own = Params::without_grads(graph)?;
        if !params.are_of(graph) {
            let e = Error::new(ErrorKind::Shape, "model", "parameters of another graph");
            return Err(e.expected("the parameters that the graph names"));
        }
        let convert = |to: &mut [f32], from: &[E]| to.iter_mut().zip(from).for_each(|(to, v)| *to = v.wide() as f32);
        convert(own.values_mut(), params.values());
        convert(own.states_mut(), params.states());
        Model::new(graph.clone(), own, info, "model")
    }

    fn new(graph: Graph, params: Params<f32>, info: ModelInfo, subject: &str) -> Result<Self> {
        Cpu::check()?;
        info.check(&graph, subject)?;
        let (mean, std) = (info.preprocessing.mean, info.preprocessing.std);
        let value = |c: usize, byte: usize| ((byte as f64 / 255.0 - mean[c]) / std[c]) as f32;
        let pixels = std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte)));
        Ok(Model {
            inner: Arc::new(Inner { graph, info, params, pixels, idle: Mutex::default(), prepared: Mutex::default() }),
        })
    }

    /// The names of the classes, in the order of the outputs; where those are more, of the first.
    pub fn classes(&self) -> &[String] {
        &self.inner.info.classes
    }

    /// Height and width of the images that it sees.
    pub fn size(&self) -> (usize, usize) {
        self.inner.info.preprocessing.size
    }

    /// Class names, preprocessing, notes.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// Its layers.
    pub fn graph(&self) -> &Graph {
        &self.inner.graph
    }

    /// Memory and a plan for batches of up to `max_batch` images, on the CPU.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for a batch of 0 or beyond 2^20, [`ErrorKind::Unsupported`] where memory is too small.
    pub fn session(&self, max_batch: usize) -> Result<Session> {
        self.session_on(Device::Cpu, max_batch)
    }

    /// [`Model::session`] on a device. On a GPU the layers run one by one, as training's evaluation runs them, so that scores
    /// differ from the CPU's by rounding; a session there holds the weights once more.
    ///
    /// # Errors
    /// As [`Model::session`]; kind [`ErrorKind::Unsupported`] where there is no such device or no kernel for a layer,
    /// [`ErrorKind::Usage`] where another device is open, [`ErrorKind::Device`] where it fails.
    pub fn session_on(&self, device: Device, max_batch: usize) -> Result<Session> {
        Ok(Session { model: self.clone(), runner: Runner::new(&self.inner, max_batch, device)? })
    }

    /// Classifies one RGB image `[height, width, 3]` of any size, brought to the model's as its preprocessing says.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] for an image without pixels or of other than three channels,
    /// [`ErrorKind::NonFinite`] where the model's scores are not finite.
    pub fn predict(&self, image: &ArrayView3<'_, u8>) -> Result<Prediction> {
        let image = self.fitted(image.view())?;
        let kept = self.lock().pop();
        let mut runner = match kept {
            Some(runner) => runner,
            None => Runner::new(&self.inner, 1, Device::Cpu)?,
        };
        runner.feed_bytes(&self.inner, image.view().insert_axis(Axis(0)))?;
        runner.run(&self.inner, 1)?;
        let mut probabilities = vec![0.0; self.classes().len()];
        let result = runner.probabilities(&self.inner, 1, |_, c, p| probabilities[c] = p);
        let mut idle = self.lock();
        if idle.len() < KEPT {
            idle.push(runner);
        }
        drop(idle);
        result.map(|()| Prediction::new(self.classes(), &probabilities))
    }

    /// The image at the model's size, as its [`Preprocessing`](model_file::Preprocessing) says.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] for an image without pixels or of other than three channels.
    pub fn fitted<'a>(&self, image: ArrayView3<'a, u8>) -> Result<ndarray::CowArray<'a, u8, ndarray::Ix3>> {
        let preprocessing = &self.inner.info.preprocessing;
        let ((height, width), framing) = (preprocessing.size, preprocessing.framing_of_any());
        // An image of the size may still be squashed and cut, if that is what validation did.
        if image.dim() == (height, width, 3) && framing == Framing::Fill {
            return Ok(image.into());
        }
        framed(image, framing, preprocessing.size).map(Into::into)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Runner>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("info", &self.inner.info).finish_non_exhaustive()
    }
}
