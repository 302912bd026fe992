//! Dicts and namespaces.

use std::cell::Cell;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::value::Value;

/// A dict in insertion order. Those of a conversation are small, so keys are searched in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dict<'a> {
    pub(crate) entries: &'a [(Value<'a>, Value<'a>)],
}

impl<'a> Dict<'a> {
    pub(crate) fn get_str(self, key: &str) -> Option<Value<'a>> {
        self.entries.iter().find_map(|(k, v)| match k {
            // Most keys of the same length differ in their first byte.
            Value::Str(k) | Value::Markup(k)
                if k.len() == key.len()
                    && k.as_bytes().first() == key.as_bytes().first()
                    && *k == key =>
            {
                Some(*v)
            }
            _ => None,
        })
    }

    pub(crate) fn get(self, key: &Value<'a>) -> Option<Value<'a>> {
        match key {
            Value::Str(key) | Value::Markup(key) => self.get_str(key),
            _ => self.entries.iter().find(|(k, _)| k.equals(key)).map(|(_, v)| *v),
        }
    }

    pub(crate) fn keys(self, arena: &'a Bump) -> &'a [Value<'a>] {
        arena.alloc_slice_fill_iter(self.entries.iter().map(|(key, _)| *key))
    }

    pub(crate) fn values(self, arena: &'a Bump) -> &'a [Value<'a>] {
        arena.alloc_slice_fill_iter(self.entries.iter().map(|(_, value)| *value))
    }

    pub(crate) fn items(self, arena: &'a Bump) -> &'a [Value<'a>] {
        let pair = |(key, value): &(Value<'a>, Value<'a>)| {
            Value::Tuple(arena.alloc([*key, *value]).as_slice())
        };
        arena.alloc_slice_fill_iter(self.entries.iter().map(pair))
    }
}

/// A dict that is being filled.
#[derive(Debug)]
pub(crate) struct DictBuilder<'a> {
    entries: ArenaVec<'a, (Value<'a>, Value<'a>)>,
}

impl<'a> DictBuilder<'a> {
    pub(crate) fn new(arena: &'a Bump, capacity: usize) -> Self {
        Self { entries: ArenaVec::with_capacity_in(capacity, arena) }
    }

    pub(crate) fn copy(arena: &'a Bump, dict: Dict<'a>) -> Self {
        let mut builder = Self::new(arena, dict.entries.len() + 2);
        builder.entries.extend_from_slice_copy(dict.entries);
        builder
    }

    /// Adds an entry whose key is known to be new.
    pub(crate) fn push(&mut self, key: Value<'a>, value: Value<'a>) {
        self.entries.push((key, value));
    }

    pub(crate) fn insert(&mut self, key: Value<'a>, value: Value<'a>) {
        match self.entries.iter_mut().find(|(k, _)| k.equals(&key)) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    pub(crate) fn finish(self) -> Dict<'a> {
        Dict { entries: self.entries.into_bump_slice() }
    }
}

/// `namespace(...)`: the one value that a template can change.
#[derive(Debug)]
pub(crate) struct Namespace<'a> {
    entries: Cell<&'a [(Value<'a>, Cell<Value<'a>>)]>,
}

impl<'a> Namespace<'a> {
    pub(crate) fn new(arena: &'a Bump, dict: Dict<'a>) -> Self {
        let entries = dict.entries.iter().map(|(key, value)| (*key, Cell::new(*value)));
        Self { entries: Cell::new(arena.alloc_slice_fill_iter(entries)) }
    }

    fn find(&self, key: &str) -> Option<&'a Cell<Value<'a>>> {
        self.entries.get().iter().find(|(k, _)| k.equals_str(key)).map(|(_, value)| value)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.find(key).map(Cell::get)
    }

    /// Assigns in place; only a new name needs a new array.
    pub(crate) fn set(&self, arena: &'a Bump, key: &'a str, value: Value<'a>) {
        if let Some(cell) = self.find(key) {
            cell.set(value);
        } else {
            let old = self.entries.get();
            let new = (Value::Str(key), Cell::new(value));
            let mut entries = ArenaVec::with_capacity_in(old.len() + 1, arena);
            entries.extend(old.iter().cloned().chain([new]));
            self.entries.set(entries.into_bump_slice());
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        self.entries.get().iter().map(|(key, value)| (*key, value.get()))
    }
}
