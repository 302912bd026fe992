//! Expressions.

use bumpalo::collections::Vec as ArenaVec;

use super::Interp;
use crate::jinja::access;
use crate::jinja::args::Args;
use crate::jinja::ast::{Attr, CallArgs, CompareOp, Const, Expr, FilterExpr};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::ops;
use crate::jinja::value::{DictBuilder, Undefined, Value};

impl<'a> Interp<'a> {
    /// Writes `{{ expr }}`. The terms of a sum of texts go straight to the output.
    pub(super) fn output(&mut self, expr: &'a Expr) -> Result<()> {
        match expr {
            Expr::Sum(terms) => {
                if let Some(sum) = self.sum(terms)? {
                    sum.write(&mut self.out);
                }
            }
            Expr::Concat(parts) => {
                for part in parts {
                    self.output(part)?;
                }
            }
            Expr::Cond { test, then, otherwise } => {
                if self.test(test)? {
                    self.output(then)?;
                } else if let Some(otherwise) = otherwise {
                    self.output(otherwise)?;
                }
            }
            expr => self.eval(expr)?.write(&mut self.out),
        }
        Ok(())
    }

    /// Writes `a + b + c` to the end of the output as long as all are texts; else gives the sum.
    fn sum(&mut self, terms: &'a [Expr]) -> Result<Option<Value<'a>>> {
        let start = self.out.len();
        let mut sum = None;
        for (i, term) in terms.iter().enumerate() {
            let value = self.eval(term)?;
            sum = match (sum, value) {
                (None, Value::Str(text)) => {
                    self.out.push_str(text);
                    None
                }
                (None, value) if i == 0 => Some(value),
                (None, value) => {
                    let before = Value::Str(self.take(start));
                    Some(ops::add(self.arena, before, value)?)
                }
                (Some(sum), value) => Some(ops::add(self.arena, sum, value)?),
            };
        }
        Ok(sum)
    }

    /// Whether an expression is true, as an `if` asks: no value is made where the answer is enough.
    pub(super) fn test(&mut self, expr: &'a Expr) -> Result<bool> {
        match expr {
            Expr::And(left, right) => Ok(self.test(left)? && self.test(right)?),
            Expr::Or(left, right) => Ok(self.test(left)? || self.test(right)?),
            Expr::Not(inner) => Ok(!self.test(inner)?),
            Expr::Compare(first, rest) => self.compare(first, rest),
            expr => Ok(self.eval(expr)?.is_true()),
        }
    }

    fn compare(&mut self, first: &'a Expr, rest: &'a [(CompareOp, Expr)]) -> Result<bool> {
        let mut left = self.eval(first)?;
        for (op, right) in rest {
            let right = self.eval(right)?;
            if !ops::compare(self.arena, *op, &left, &right)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    }

    pub(super) fn eval(&mut self, expr: &'a Expr) -> Result<Value<'a>> {
        match expr {
            Expr::Const(constant) => Ok(match constant {
                Const::None => Value::None,
                Const::Bool(b) => Value::Bool(*b),
                Const::Int(n) => Value::int(*n),
                Const::Float(x) => Value::Float(*x),
                Const::Str(text) => Value::Str(text),
            }),
            Expr::Name(name) => Ok(self.variable(name)),
            // Memory of its own, for `is sameas`.
            Expr::List(items) if items.is_empty() => {
                Ok(Value::List(&self.arena.alloc([Value::Unset])[..0]))
            }
            Expr::List(items) => Ok(Value::List(self.eval_all(items)?)),
            Expr::Tuple(items) => Ok(Value::Tuple(self.eval_all(items)?)),
            Expr::Dict(items) => {
                let mut dict = DictBuilder::new(self.arena, items.len());
                for (key, value) in items {
                    let key = self.eval(key)?;
                    ops::hashable(&key)?;
                    let value = self.eval(value)?;
                    dict.insert(key, value);
                }
                Ok(Value::Dict(dict.finish()))
            }
            Expr::Attr(object, name) => {
                let object = self.eval(object)?;
                self.attribute(&object, name)
            }
            Expr::Item(object, key) => {
                let object = self.eval(object)?;
                if let (Value::Dict(dict), Expr::Const(Const::Str(key))) = (&object, &**key)
                    && let Some(value) = dict.get_str(key)
                {
                    return Ok(value);
                }
                let key = self.eval(key)?;
                access::item(self.arena, &object, &key)
            }
            Expr::Slice(object, parts) => {
                let object = self.eval(object)?;
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = self.eval(part)?;
                    }
                }
                access::slice(self.arena, &object, bounds)
            }
            Expr::Call(function, args) => self.call_expr(function, args, None),
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => {
                let value = self.eval(&test.target)?;
                let args = self.args(&test.args)?;
                match test.test {
                    Some(predicate) => Ok(Value::Bool(predicate(self.arena, &value, args)?)),
                    None => Err(runtime(format!("no test named '{}'", test.name))),
                }
            }
            Expr::Sum(terms) => {
                let start = self.out.len();
                Ok(match self.sum(terms)? {
                    Some(sum) => sum,
                    None => Value::Str(self.take(start)),
                })
            }
            Expr::Binary(op, left, right) => {
                let left = self.eval(left)?;
                let right = self.eval(right)?;
                ops::binary(self.arena, *op, left, right)
            }
            Expr::Concat(parts) => {
                let start = self.out.len();
                for part in parts {
                    self.output(part)?;
                }
                Ok(Value::Str(self.take(start)))
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.test(inner)?)),
            Expr::Neg(inner) => ops::negate(&self.eval(inner)?, false),
            Expr::Pos(inner) => ops::negate(&self.eval(inner)?, true),
            Expr::Compare(first, rest) => Ok(Value::Bool(self.compare(first, rest)?)),
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { self.eval(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { Ok(left) } else { self.eval(right) }
            }
            Expr::Cond { test, then, otherwise } => {
                if self.test(test)? {
                    self.eval(then)
                } else {
                    match otherwise {
                        Some(otherwise) => self.eval(otherwise),
                        None => Ok(Value::reason("an inline if without else was false")),
                    }
                }
            }
        }
    }

    fn eval_all(&mut self, exprs: &'a [Expr]) -> Result<&'a [Value<'a>]> {
        if exprs.is_empty() {
            return Ok(&[]);
        }
        let values = self.arena.alloc_slice_fill_copy(exprs.len(), Value::Unset);
        for (value, expr) in values.iter_mut().zip(exprs) {
            *value = self.eval(expr)?;
        }
        Ok(values)
    }

    pub(super) fn attribute(&mut self, object: &Value<'a>, attr: &'a Attr) -> Result<Value<'a>> {
        // The keys of a dict are the common case; only names that a Python dict has are not keys.
        if let Value::Dict(dict) = object
            && !attr.known.on_dict
        {
            let missing = Value::Undefined(Undefined::Attr(object.type_name()), &attr.name);
            return Ok(dict.get_str(&attr.name).unwrap_or(missing));
        }
        access::attribute(self.arena, object, &attr.name)
    }

    fn filter(&mut self, expr: &'a FilterExpr) -> Result<Value<'a>> {
        let value = match &expr.target {
            Some(target) => self.eval(target)?,
            None => self.captured.take().unwrap_or_default(),
        };
        let args = self.args(&expr.args)?;
        match expr.filter {
            Some(filter) => filter(self, value, args),
            None => Err(runtime(format!("no filter named '{}'", expr.name))),
        }
    }

    pub(super) fn args(&mut self, args: &'a CallArgs) -> Result<Args<'a>> {
        let mut positional = self.eval_all(&args.positional)?;
        if args.keyword.is_empty() && args.star.is_none() && args.double_star.is_none() {
            return Ok(Args::positional(positional));
        }
        if let Some(star) = &args.star {
            let star = self.eval(star)?;
            let more = ops::iterate(self.arena, &star)?;
            positional = self.arena.alloc_slice_copy(&[positional, more].concat());
        }
        let mut keyword = ArenaVec::with_capacity_in(args.keyword.len(), self.arena);
        for (name, value) in &args.keyword {
            keyword.push((name.as_str(), self.eval(value)?));
        }
        if let Some(double_star) = &args.double_star {
            let mapping = self.eval(double_star)?;
            let Value::Dict(dict) = &mapping else {
                return Err(type_error("the argument behind ** must be a mapping"));
            };
            for (key, value) in dict.entries {
                let key = key.as_str().ok_or_else(|| type_error("keywords must be strings"))?;
                if keyword.iter().any(|(known, _)| *known == key) {
                    let message = format!("multiple values for keyword argument '{key}'");
                    return Err(type_error(message));
                }
                keyword.push((key, *value));
            }
        }
        Ok(Args { positional, keyword: keyword.into_bump_slice() })
    }
}
