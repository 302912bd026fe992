//! A Jinja2 engine with Python's values, made for chat templates.
//!
//! It renders what `jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True,
//! lstrip_blocks=True)` renders with the extensions, filters and functions that transformers adds,
//! and refuses what it refuses. The known differences stand in `COMPATIBILITY.md`.
//!
//! source -> [`lexer`] -> [`parser`] -> [`ast`] -> [`scope`] (names to slots) -> [`interp`]

mod access;
mod args;
mod ast;
#[cfg(test)]
mod conformance;
mod convert;
mod dict;
mod error;
mod filters;
mod globals;
mod interp;
mod json;
mod lexer;
mod methods;
mod numbers;
mod ops;
mod parser;
mod percent;
mod predicates;
mod python;
mod repr;
mod scope;
mod strftime;
mod unescape;
mod value;

use std::ops::Range;

use bumpalo::Bump;

pub(crate) use convert::{copy_map, from_json, from_map};
pub use error::{Error, ErrorKind};
pub(crate) use python::is_space;
pub(crate) use value::{Dict, DictBuilder, Value};

use interp::Interp;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    body: Vec<ast::Stmt>,
    /// The template's slots, which the context fills, in the order of [`Slot::order`].
    names: Vec<Slot>,
}

/// A slot with a name.
#[derive(Debug)]
pub(crate) struct Slot {
    name: String,
    index: usize,
    /// The function of this name, where there is one.
    function: Option<globals::Function>,
}

impl Slot {
    /// By length first, which spares most comparisons of texts.
    fn order(&self, name: &str) -> std::cmp::Ordering {
        self.name.len().cmp(&name.len()).then_with(|| (*self.name).cmp(name))
    }
}

/// A rendered text and the byte ranges that `{% generation %}` blocks wrote.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) generation: Vec<Range<usize>>,
    /// Whether blocks stood in captured text (a macro, a `set` block), whose place is not known.
    pub(crate) captured: bool,
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self, Error> {
        let mut body = parser::parse(source)?;
        let names = scope::resolve(&mut body)?.into_iter().enumerate();
        let slot = |(index, name): (usize, String)| Slot {
            function: globals::Function::find(&name),
            name,
            index,
        };
        let mut names: Vec<Slot> = names.map(slot).collect();
        names.sort_by(|a, b| a.order(&b.name));
        Ok(Self { body, names })
    }

    /// Renders with variables; the `clock` answers `strftime_now`.
    pub(crate) fn render<'a>(
        &'a self,
        arena: &'a Bump,
        variables: &[(&'a str, Value<'a>)],
        clock: &'a dyn Fn() -> jiff::civil::DateTime,
    ) -> Result<Rendered, Error> {
        Ok(Interp::new(arena, &self.names, variables, clock).run(&self.body)?)
    }

    /// Renders with the places of all `{% generation %}` blocks, also of those in captured text.
    pub(crate) fn render_spans<'a>(
        &'a self,
        arena: &'a Bump,
        variables: &[(&'a str, Value<'a>)],
        clock: &'a dyn Fn() -> jiff::civil::DateTime,
    ) -> Result<Rendered, Error> {
        let rendered = self.render(arena, variables, clock)?;
        if !rendered.captured {
            return Ok(rendered);
        }
        let marked = Interp::new(arena, &self.names, variables, clock).run_marked(&self.body)?;
        if marked.text != rendered.text {
            return Err(Error::from(error::runtime(
                "a {% generation %} block stands in captured text that the template changes \
                 afterwards, so its place in the output is not known",
            )));
        }
        Ok(marked)
    }

    /// Every text that the template can write by itself: its data and its string constants.
    pub(crate) fn literals(&self) -> Vec<&str> {
        let mut out = Vec::new();
        ast::literals(&self.body, &mut out);
        out
    }

    /// Whether the template has a `{% generation %}` block.
    pub(crate) fn has_generation(&self) -> bool {
        ast::has_generation(&self.body)
    }
}
