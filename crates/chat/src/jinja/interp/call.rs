//! Calls: methods, functions and macros.

use super::{Frame, Interp, MAX_CALLS};
use crate::jinja::args::Args;
use crate::jinja::ast::{CallArgs, Expr};
use crate::jinja::error::{Result, runtime, type_error};
use crate::jinja::methods;
use crate::jinja::ops::undefined_error;
use crate::jinja::value::{DictBuilder, MacroValue, Value};

impl<'a> Interp<'a> {
    pub(super) fn call_expr(
        &mut self,
        function: &'a Expr,
        args: &'a CallArgs,
        caller: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        if let Expr::Attr(object, attr) = function {
            let object = self.eval(object)?;
            if caller.is_none() && attr.is_method_of(&object) {
                // A method that is called at once needs no method value.
                let args = self.args(args)?;
                return methods::call(self.arena, &object, &attr.name, args);
            }
            let function = self.attribute(&object, attr)?;
            return self.call_value(&function, args, caller);
        }
        let function = self.eval(function)?;
        self.call_value(&function, args, caller)
    }

    fn call_value(
        &mut self,
        function: &Value<'a>,
        args: &'a CallArgs,
        caller: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        let mut args = self.args(args)?;
        if let Some(caller) = caller {
            let keyword = [args.keyword, &[("caller", caller)]].concat();
            args.keyword = self.arena.alloc_slice_copy(&keyword);
        }
        match function {
            Value::Function(function) => function.call(self.arena, args, self.clock),
            Value::Macro(macro_) => self.call_macro(macro_, args),
            Value::Method(method) => methods::call(self.arena, &method.0, method.1, args),
            Value::Loop(loop_) => {
                let [items] = args.bind("loop", [""], 1)?.map(Option::unwrap_or_default);
                self.recurse(loop_, &items)
            }
            Value::Joiner((separator, used)) => {
                args.none("joiner")?;
                Ok(if used.replace(true) { *separator } else { Value::Str("") })
            }
            value if value.is_undefined() => Err(undefined_error(value)),
            value => {
                let name = value.type_name().as_str();
                Err(type_error(format!("'{name}' object is not callable")))
            }
        }
    }

    pub(super) fn check_depth(&self, loops: usize) -> Result<()> {
        if self.frames.len() + loops > MAX_CALLS {
            return Err(runtime(format!(
                "macros or loops call each other deeper than {MAX_CALLS} levels"
            )));
        }
        Ok(())
    }

    fn call_macro(&mut self, macro_: &'a MacroValue<'a>, args: Args<'a>) -> Result<Value<'a>> {
        let def = macro_.def;
        self.check_depth(0)?;
        let alive = self.frames.get(macro_.frame).is_some_and(|f| f.serial == macro_.frame_serial);
        if !alive {
            return Err(runtime("a macro is called after the macro that defined it has ended"));
        }
        let Args { positional, keyword } = args;
        let mut keyword = keyword.to_vec();
        let mut take = |wanted: &str| {
            let at = keyword.iter().position(|(key, _)| *key == wanted)?;
            Some(keyword.remove(at).1)
        };
        let values = self.arena.alloc_slice_fill_copy(def.params.len(), None);
        for (i, (param, _)) in def.params.iter().enumerate() {
            values[i] = positional.get(i).copied().or_else(|| take(&param.name));
        }
        let extra = positional.get(def.params.len()..).unwrap_or_default();
        let caller = def.caller.map(|slot| {
            let caller = take("caller").filter(|caller| !matches!(caller, Value::None));
            (slot, caller.unwrap_or(Value::reason("no caller defined")))
        });
        let name = &def.name.name;
        if def.kwargs.is_none()
            && let Some((key, _)) = keyword.first()
        {
            return Err(type_error(format!("macro '{name}' takes no keyword argument '{key}'")));
        }
        if def.varargs.is_none() && !extra.is_empty() {
            let (most, found) = (def.params.len(), positional.len());
            let message =
                format!("macro '{name}' takes not more than {most} arguments, found {found}");
            return Err(type_error(message));
        }

        self.serial += 1;
        let base = self.slots.len();
        let frame = Frame { base, parent: macro_.frame, serial: self.serial };
        let (outer, outer_base) = (self.current, self.base);
        self.current = self.frames.len();
        self.frames.push(frame);
        self.base = base;
        self.slots.resize(base + def.slots as usize, Value::Unset);
        self.enter(&def.entry);
        if let Some((slot, caller)) = caller {
            self.slots[base + slot as usize] = caller;
        }
        if let Some(slot) = def.varargs {
            self.slots[base + slot as usize] = Value::Tuple(extra);
        }
        if let Some(slot) = def.kwargs {
            let mut dict = DictBuilder::new(self.arena, keyword.len());
            for (key, value) in keyword {
                dict.push(Value::Str(key), value);
            }
            self.slots[base + slot as usize] = Value::Dict(dict.finish());
        }
        let result = self.macro_text(macro_, values);
        self.frames.pop();
        self.slots.truncate(base);
        (self.current, self.base) = (outer, outer_base);
        result
    }

    /// Sets the parameters in the new frame and runs the body.
    fn macro_text(
        &mut self,
        macro_: &MacroValue<'a>,
        values: &[Option<Value<'a>>],
    ) -> Result<Value<'a>> {
        let def = macro_.def;
        for ((param, _), value) in def.params.iter().zip(values) {
            if let Some(value) = value {
                self.slots[self.base + param.slot as usize] = *value;
            }
        }
        for ((param, default), value) in def.params.iter().zip(values) {
            if let (Some(default), None) = (default, value) {
                let value = self.eval(default)?;
                self.slots[self.base + param.slot as usize] = value;
            }
        }
        Ok(Value::Str(self.capture(|this| this.body(&def.body).map(|_| ()))?))
    }
}
