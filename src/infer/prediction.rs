//! What a model says about one image.

use serde::Serialize;

/// A class and how probable the model finds it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassProbability {
    /// The number of the class.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// From 0 to 1.
    pub probability: f32,
}

/// All classes, the most probable first; of equally probable ones that with the lowest number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    classes: Vec<ClassProbability>,
}

impl Prediction {
    /// Sorts the probabilities of the classes called `names`.
    pub fn new(names: &[String], probabilities: &[f32]) -> Self {
        let class = |(class, (name, &probability)): (usize, (&String, &f32))| ClassProbability {
            class,
            name: name.clone(),
            probability,
        };
        let mut classes: Vec<_> = names.iter().zip(probabilities).enumerate().map(class).collect();
        classes.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.class.cmp(&b.class)));
        Prediction { classes }
    }

    /// All classes, the most probable first.
    pub fn classes(&self) -> &[ClassProbability] {
        &self.classes
    }

    /// The `k` most probable classes, or all if there are fewer.
    pub fn top(&self, k: usize) -> &[ClassProbability] {
        &self.classes[..k.min(self.classes.len())]
    }

    /// The most probable class.
    pub fn best(&self) -> Option<&ClassProbability> {
        self.classes.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_sorted_and_ties_keep_their_order() {
        let names = ["a", "b", "c", "d"].map(String::from);
        let prediction = Prediction::new(&names, &[0.1, 0.4, 0.1, 0.4]);
        let order: Vec<&str> = prediction.classes().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
        assert_eq!(prediction.top(2).len(), 2);
        assert_eq!(prediction.top(9).len(), 4);
        assert_eq!(prediction.best().unwrap().class, 1);
    }
}
