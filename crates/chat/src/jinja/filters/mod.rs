//! The filters: `x | trim`, `xs | map(attribute="name")`.

mod escaping;
mod numbers;
mod sequences;
mod sorting;
mod text;
mod words;

use super::args::Args;
use super::error::Result;
use super::interp::Interp;
use super::value::Value;

pub(crate) use sequences::{attributes, get_path};

pub(crate) type Filter = for<'a> fn(&mut Interp<'a>, Value<'a>, Args<'a>) -> Result<Value<'a>>;

pub(crate) fn find(name: &str) -> Option<Filter> {
    Some(match name {
        "abs" => numbers::abs,
        "float" => numbers::float,
        "int" => numbers::int,
        "round" => numbers::round,
        "sum" => numbers::sum,
        "e" | "escape" => escaping::escape,
        "forceescape" => escaping::forceescape,
        "safe" => escaping::safe,
        "striptags" => escaping::striptags,
        "tojson" => escaping::tojson,
        "urlencode" => escaping::urlencode,
        "attr" => sequences::attr,
        "batch" => sequences::batch,
        "count" | "length" => sequences::length,
        "d" | "default" => sequences::default,
        "first" => sequences::first,
        "items" => sequences::items,
        "join" => sequences::join,
        "last" => sequences::last,
        "list" => sequences::list,
        "map" => sequences::map,
        "reject" => sequences::reject,
        "rejectattr" => sequences::rejectattr,
        "reverse" => sequences::reverse,
        "select" => sequences::select,
        "selectattr" => sequences::selectattr,
        "slice" => sequences::slice,
        "dictsort" => sorting::dictsort,
        "groupby" => sorting::groupby,
        "max" => sorting::max,
        "min" => sorting::min,
        "sort" => sorting::sort,
        "unique" => sorting::unique,
        "capitalize" => text::capitalize,
        "center" => text::center,
        "format" => text::format,
        "indent" => text::indent,
        "lower" => text::lower,
        "replace" => text::replace,
        "string" => text::string,
        "title" => text::title,
        "trim" => text::trim,
        "truncate" => text::truncate,
        "upper" => text::upper,
        "wordcount" => words::wordcount,
        "wordwrap" => words::wordwrap,
        "filesizeformat" | "pprint" | "random" | "urlize" | "xmlattr" => unsupported,
        _ => return None,
    })
}

/// A filter of Jinja2 that no chat template has a use for.
fn unsupported<'a>(_: &mut Interp<'a>, _: Value<'a>, _: Args<'a>) -> Result<Value<'a>> {
    Err(super::error::runtime(
        "the filters filesizeformat, pprint, random, urlize and xmlattr are not supported in chat templates",
    ))
}
