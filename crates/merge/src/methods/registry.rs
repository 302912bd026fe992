//! The methods by their names.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::parameter::{Parameter, Resolved};
use super::{
    Merge, arcee_fusion, breadcrumbs, dare, della, karcher, linear, model_stock, multislerp,
    nearswap, nuslerp, passthrough, ram, sce, slerp, task_arithmetic, ties,
};
use crate::Error;

/// How a method sees the base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// As an input like the others.
    Ignored,
    /// Apart from the inputs, if there is one.
    Optional,
    /// Apart from the inputs; there must be one.
    Required,
}

type Build = Arc<dyn Fn(&Resolved) -> Result<Box<dyn Merge>, Error> + Send + Sync>;

/// A method as configurations name it.
#[derive(Clone)]
pub struct Method {
    /// `merge_method`.
    pub name: &'static str,
    /// How people write it.
    pub pretty_name: &'static str,
    /// The paper.
    pub reference_url: &'static str,
    /// How it sees the base model.
    pub base: Base,
    /// How many inputs it merges, the base not counted where it is told apart.
    pub inputs: RangeInclusive<usize>,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    build: Build,
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A method that is being described; [`build`](MethodBuilder::build) ends it.
#[derive(Clone, Debug)]
pub struct MethodBuilder {
    name: &'static str,
    pretty_name: &'static str,
    reference_url: &'static str,
    base: Base,
    inputs: RangeInclusive<usize>,
    parameters: Vec<Parameter>,
}

impl Method {
    /// Begins the description of a method: its name, how it sees the base, how many inputs it merges.
    #[expect(clippy::new_ret_no_self, reason = "a description is complete with its `build` only")]
    pub fn new(name: &'static str, base: Base, inputs: RangeInclusive<usize>) -> MethodBuilder {
        MethodBuilder {
            name,
            pretty_name: name,
            reference_url: "",
            base,
            inputs,
            parameters: Vec::new(),
        }
    }

    /// The method with the parameters of one tensor.
    ///
    /// # Errors
    /// [`Error::Value`] for a parameter that is out of its range.
    pub fn with(&self, parameters: &Resolved) -> Result<Box<dyn Merge>, Error> {
        (self.build)(parameters)
    }
}

impl MethodBuilder {
    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// How people write the method, and its paper.
    #[must_use]
    pub fn reference(self, pretty_name: &'static str, reference_url: &'static str) -> Self {
        Self { pretty_name, reference_url, ..self }
    }

    /// How the parameters of a tensor become a merge, or an [`Error::Value`] for one that is out of its
    /// range.
    pub fn build<M: Merge + 'static>(
        self,
        build: impl Fn(&Resolved) -> Result<M, Error> + Send + Sync + 'static,
    ) -> Method {
        let Self { name, pretty_name, reference_url, base, inputs, parameters } = self;
        let build: Build = Arc::new(move |resolved| Ok(Box::new(build(resolved)?)));
        Method { name, pretty_name, reference_url, base, inputs, parameters, build }
    }
}

/// All methods that a configuration may name.
#[derive(Clone, Debug)]
pub struct Registry(Vec<Method>);

impl Default for Registry {
    /// Every method of this crate.
    fn default() -> Self {
        Self(vec![
            linear::method(),
            slerp::method(),
            nuslerp::method(),
            multislerp::method(),
            karcher::method(),
            model_stock::method(),
            sce::method(),
            ram::method(),
            ram::plus_method(),
            nearswap::method(),
            arcee_fusion::method(),
            passthrough::method(),
            task_arithmetic::method(),
            ties::method(),
            dare::linear(),
            dare::ties(),
            della::linear(),
            della::ties(),
            breadcrumbs::linear(),
            breadcrumbs::ties(),
        ])
    }
}

impl Registry {
    /// Adds a method of one's own; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, method: Method) -> Self {
        self.0.retain(|known| known.name != method.name);
        self.0.push(method);
        self
    }

    /// The method of this name.
    pub fn get(&self, name: &str) -> Option<&Method> {
        self.0.iter().find(|method| method.name == name)
    }

    /// Every method.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.0.iter()
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|method| method.name)
    }
}
