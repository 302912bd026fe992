//! Expressions.

use super::Interp;
use crate::jinja::access;
use crate::jinja::args::Args;
use crate::jinja::ast::{CallArgs, Const, Expr, FilterExpr};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::methods;
use crate::jinja::ops;
use crate::jinja::value::{Dict, Str, Undefined, Value};

impl<'a> Interp<'a> {
    /// Writes `{{ expr }}`. The terms of a sum of texts go straight to the output.
    pub(super) fn output(&mut self, expr: &'a Expr) -> Result<()> {
        match expr {
            Expr::Sum(terms) => {
                let start = self.out.len();
                for (i, term) in terms.iter().enumerate() {
                    match self.eval(term)? {
                        Value::Str(text) => self.out.push_str(&text),
                        value => {
                            // Not all texts: put the terms so far back together and add as usual.
                            let sum = if i == 0 {
                                value
                            } else {
                                let before = self.out.split_off(start);
                                ops::add(Value::string(before), value)?
                            };
                            self.sum(sum, &terms[i + 1..])?.write(&mut self.out);
                            return Ok(());
                        }
                    }
                }
            }
            Expr::Concat(parts) => {
                let mut values = Vec::with_capacity(parts.len());
                for part in parts {
                    values.push(self.eval(part)?);
                }
                values.iter().for_each(|value| value.write(&mut self.out));
            }
            Expr::Cond { test, then, otherwise } => {
                if self.eval(test)?.is_true() {
                    self.output(then)?;
                } else if let Some(otherwise) = otherwise {
                    self.output(otherwise)?;
                }
            }
            expr => self.eval(expr)?.write(&mut self.out),
        }
        Ok(())
    }

    fn sum(&mut self, first: Value<'a>, rest: &'a [Expr]) -> Result<Value<'a>> {
        let mut sum = first;
        let mut rest = rest.iter();
        // Texts are appended in place; anything else goes through `add`.
        while let Value::Str(text) = &sum {
            let mut joined = String::with_capacity(text.len() + 64);
            joined.push_str(text);
            let mut added = false;
            let mut stopped = None;
            for term in rest.by_ref() {
                match self.eval(term)? {
                    Value::Str(text) => {
                        joined.push_str(&text);
                        added = true;
                    }
                    other => {
                        stopped = Some(other);
                        break;
                    }
                }
            }
            if added {
                sum = Value::string(joined);
            }
            match stopped {
                Some(other) => sum = ops::add(sum, other)?,
                None => return Ok(sum),
            }
        }
        for term in rest {
            let value = self.eval(term)?;
            sum = ops::add(sum, value)?;
        }
        Ok(sum)
    }

    pub(super) fn eval(&mut self, expr: &'a Expr) -> Result<Value<'a>> {
        match expr {
            Expr::Const(constant) => Ok(match constant {
                Const::None => Value::None,
                Const::Bool(b) => Value::Bool(*b),
                Const::Int(n) => Value::Int(*n),
                Const::Float(x) => Value::Float(*x),
                Const::Str(text) => Value::str(text),
            }),
            Expr::Name(name) => Ok(self.variable(name)),
            Expr::List(items) => Ok(Value::list(self.eval_all(items)?)),
            Expr::Tuple(items) => Ok(Value::tuple(self.eval_all(items)?)),
            Expr::Dict(items) => {
                let mut dict = Dict::default();
                for (key, value) in items {
                    let key = self.eval(key)?;
                    ops::hashable(&key)?;
                    let value = self.eval(value)?;
                    dict.insert(key, value);
                }
                Ok(Value::dict(dict))
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
                    return Ok(value.clone());
                }
                let key = self.eval(key)?;
                access::item(&object, &key)
            }
            Expr::Slice(object, parts) => {
                let object = self.eval(object)?;
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = self.eval(part)?;
                    }
                }
                access::slice(&object, bounds)
            }
            Expr::Call(function, args) => self.call_expr(function, args, None),
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => {
                let value = self.eval(&test.target)?;
                let args = self.args(&test.args)?;
                match test.test {
                    Some(predicate) => Ok(Value::Bool(predicate(&value, args)?)),
                    None => Err(runtime(format!("no test named '{}'", test.name))),
                }
            }
            Expr::Sum(terms) => {
                let first = self.eval(&terms[0])?;
                self.sum(first, &terms[1..])
            }
            Expr::Binary(op, left, right) => {
                let left = self.eval(left)?;
                let right = self.eval(right)?;
                ops::binary(*op, left, right)
            }
            Expr::Concat(parts) => {
                let values = self.eval_all(parts)?;
                let mut out = String::new();
                values.iter().for_each(|value| value.write(&mut out));
                Ok(Value::string(out))
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.eval(inner)?.is_true())),
            Expr::Neg(inner) => ops::negate(&self.eval(inner)?, false),
            Expr::Pos(inner) => ops::negate(&self.eval(inner)?, true),
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (op, right) in rest {
                    let right = self.eval(right)?;
                    if !ops::compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { self.eval(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { Ok(left) } else { self.eval(right) }
            }
            Expr::Cond { test, then, otherwise } => {
                if self.eval(test)?.is_true() {
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

    fn eval_all(&mut self, exprs: &'a [Expr]) -> Result<Vec<Value<'a>>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn attribute(&mut self, object: &Value<'a>, name: &'a str) -> Result<Value<'a>> {
        // The keys of a dict are the common case; only names that a Python dict has are not keys.
        if let Value::Dict(dict) = object
            && !methods::exists(object, name)
            && !methods::mutates(object, name)
            && !name.starts_with("__")
        {
            return Ok(match dict.get_str(name) {
                Some(value) => value.clone(),
                None => Value::Undefined(Undefined::Attr(object.type_name(), Str::Borrowed(name))),
            });
        }
        access::attribute(object, Str::Borrowed(name))
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
        if let Some(star) = &args.star {
            let star = self.eval(star)?;
            positional.extend(ops::iterate(&star)?);
        }
        let mut keyword = Vec::with_capacity(args.keyword.len());
        for (name, value) in &args.keyword {
            keyword.push((Str::Borrowed(name.as_str()), self.eval(value)?));
        }
        if let Some(double_star) = &args.double_star {
            let mapping = self.eval(double_star)?;
            let Value::Dict(dict) = &mapping else {
                return Err(type_error("the argument behind ** must be a mapping"));
            };
            for (key, value) in &dict.entries {
                let key = key.as_str().ok_or_else(|| type_error("keywords must be strings"))?;
                if keyword.iter().any(|(known, _): &(Str<'a>, _)| **known == **key) {
                    let message = format!("multiple values for keyword argument '{}'", &**key);
                    return Err(type_error(message));
                }
                keyword.push((key.clone(), value.clone()));
            }
        }
        Ok(Args { positional, keyword })
    }
}
