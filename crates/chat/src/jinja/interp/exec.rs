//! Statements.

use std::cell::Cell;

use bumpalo::collections::Vec as ArenaVec;

use super::{Flow, Interp, MARK_END, MARK_START, MAX_NESTING};
use crate::jinja::ast::{Expr, For, Scoped, Stmt, StmtKind, Target};
use crate::jinja::error::{Result, runtime, type_error, value_error};
use crate::jinja::globals::check_namespace_name;
use crate::jinja::ops::{iterate, undefined_error};
use crate::jinja::value::{Loop, MacroValue, Value};

impl<'a> Interp<'a> {
    pub(super) fn body(&mut self, body: &'a [Stmt]) -> Result<Flow> {
        for statement in body {
            let flow = self.statement(&statement.kind).map_err(|error| error.at(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn scoped(&mut self, scoped: &'a Scoped) -> Result<Flow> {
        self.enter(&scoped.entry);
        self.body(&scoped.body)
    }

    /// What a body writes, and how it ended: a `break` drops it.
    fn capture_scoped(&mut self, body: &'a Scoped) -> Result<(&'a str, Flow)> {
        let mut flow = Flow::Next;
        let text = self.capture(|this| {
            flow = this.scoped(body)?;
            Ok(())
        })?;
        Ok((text, flow))
    }

    fn statement(&mut self, kind: &'a StmtKind) -> Result<Flow> {
        match kind {
            StmtKind::Data(text) => self.out.push_str(text),
            StmtKind::Output(expr) => self.output(expr)?,
            StmtKind::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.test(test)? {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            StmtKind::For(for_) => {
                let items = self.eval(&for_.iter)?;
                return self.for_loop(for_, &items, 0);
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            StmtKind::SetBlock { target, filter, body } => {
                let (text, flow) = self.capture_scoped(body)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.apply_filters(filter.as_ref(), text)?;
                self.assign(target, value)?;
            }
            StmtKind::With { targets, body } => {
                let mut values = Vec::with_capacity(targets.len());
                for (_, expr) in targets {
                    values.push(self.eval(expr)?);
                }
                self.enter(&body.entry);
                for ((target, _), value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
                return self.body(&body.body);
            }
            StmtKind::Macro(def) => {
                let frame = self.current;
                let frame_serial = self.frames[frame].serial;
                let value = Value::Macro(self.arena.alloc(MacroValue { def, frame, frame_serial }));
                let slot = self.slot(def.name.depth, def.name.slot);
                self.slots[slot] = value;
            }
            StmtKind::Call { call, caller } => {
                let frame = self.current;
                let frame_serial = self.frames[frame].serial;
                let caller = MacroValue { def: caller, frame, frame_serial };
                let caller = Value::Macro(self.arena.alloc(caller));
                let Expr::Call(function, args) = call else {
                    return Err(runtime("a call block needs a call"));
                };
                let value = self.call_expr(function, args, Some(caller))?;
                value.write(&mut self.out);
            }
            StmtKind::FilterBlock { filter, body } => {
                let (text, flow) = self.capture_scoped(body)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.apply_filters(Some(filter), text)?;
                let Some(text) = value.as_str() else {
                    let found = value.type_name().as_str();
                    let message = format!("a filter block must give a str, found {found}");
                    return Err(type_error(message));
                };
                self.out.push_str(text);
            }
            StmtKind::Generation(body) => self.generation_block(body)?,
            StmtKind::Block { body, .. } => return self.scoped(body),
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Fail(message) => return Err(runtime(message.clone())),
        }
        Ok(Flow::Next)
    }

    fn generation_block(&mut self, body: &'a Scoped) -> Result<()> {
        if self.captures > 0 {
            self.marks += 1;
            if !self.marking {
                self.scoped(body)?;
                return Ok(());
            }
            self.out.push(MARK_START);
            self.scoped(body)?;
            self.out.push(MARK_END);
            return Ok(());
        }
        let start = self.out.len();
        self.scoped(body)?;
        self.generation.push(start..self.out.len());
        Ok(())
    }

    fn apply_filters(&mut self, filter: Option<&'a Expr>, text: &'a str) -> Result<Value<'a>> {
        match filter {
            None => Ok(Value::Str(text)),
            Some(filter) => {
                self.captured = Some(Value::Str(text));
                self.eval(filter)
            }
        }
    }

    pub(super) fn assign(&mut self, target: &'a Target, value: Value<'a>) -> Result<()> {
        match target {
            Target::Name(name) => {
                let slot = self.slot(name.depth, name.slot);
                self.slots[slot] = value;
            }
            Target::Tuple(targets) => {
                if value.is_undefined() {
                    return Err(undefined_error(&value));
                }
                let values = iterate(self.arena, &value)?;
                if values.len() != targets.len() {
                    let (expected, found) = (targets.len(), values.len());
                    let message = format!("expected {expected} values to unpack, found {found}");
                    return Err(value_error(message));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, *value)?;
                }
            }
            Target::Namespace(name, attribute) => {
                let Value::Namespace(namespace) = self.variable(name) else {
                    return Err(runtime("cannot assign attribute on non-namespace object"));
                };
                check_namespace_name(&Value::Str(attribute))?;
                // Only here can a value nest without end: `{% set ns.x = [ns.x] %}` in a loop.
                if value.nests_deeper_than(MAX_NESTING) {
                    let message = format!("a value is nested deeper than {MAX_NESTING} levels");
                    return Err(runtime(message));
                }
                namespace.set(self.arena, attribute, value);
            }
        }
        Ok(())
    }

    pub(super) fn for_loop(
        &mut self,
        for_: &'a For,
        items: &Value<'a>,
        depth: usize,
    ) -> Result<Flow> {
        let mut items = iterate(self.arena, items)?;
        if let Some(test) = &for_.test {
            let mut kept = ArenaVec::new_in(self.arena);
            for item in items {
                self.enter(&for_.body.entry);
                self.assign(&for_.target, *item)?;
                if self.eval(test)?.is_true() {
                    kept.push(*item);
                }
            }
            items = kept.into_bump_slice();
        }
        if items.is_empty() {
            return self.scoped(&for_.otherwise);
        }
        let loop_ = &*self.arena.alloc(Loop {
            items,
            index: Cell::new(0),
            depth,
            changed: Cell::new(None),
            recursive: for_.recursive.then_some(for_),
        });
        let mut completed = false;
        self.slots[self.base + for_.loop_slot as usize] = Value::Loop(loop_);
        for (index, item) in items.iter().enumerate() {
            loop_.index.set(index);
            self.enter(&for_.body.entry);
            self.assign(&for_.target, *item)?;
            match self.body(&for_.body.body)? {
                Flow::Next => completed = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        // Jinja2 runs the else branch unless the body came to its end once.
        if completed { Ok(Flow::Next) } else { self.scoped(&for_.otherwise) }
    }

    /// `loop(children)` in a recursive loop: the loop over other items, as text.
    pub(super) fn recurse(&mut self, loop_: &Loop<'a>, items: &Value<'a>) -> Result<Value<'a>> {
        let for_ = loop_.recursive.ok_or_else(|| type_error("the loop is not recursive"))?;
        self.check_depth(loop_.depth)?;
        // The inner run uses the same slots, so the outer ones are put aside.
        let saved = self.slots[self.base..].to_vec();
        let depth = loop_.depth + 1;
        let text = self.capture(|this| this.for_loop(for_, items, depth).map(|_| ()))?;
        self.slots.truncate(self.base);
        self.slots.extend(saved);
        Ok(Value::Str(text))
    }
}
