//! The model card, `README.md`: front matter as the hub reads it, the method, the models, the configuration, and how to
//! tell that a copy is this model.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::manifest::{InputRecord, Manifest, Role};

/// The name of the card's file in a merged folder.
pub const FILE: &str = "README.md";

/// The card of a merge: `name` is its heading, `config` the configuration as its author wrote it.
///
/// `base_model` in the front matter has the models of the hub alone, since the hub refuses others: names like `org/name`
/// that are no path to the folder that was read, or whose folder was downloaded from the hub.
pub fn card(name: &str, manifest: &Manifest, config: &str) -> String {
    let mut out = String::from("---\n");
    let hub = hub_names(manifest);
    if hub.is_empty() {
        out.push_str("base_model: []\n");
    } else {
        out.push_str("base_model:\n");
        for name in &hub {
            let _ = writeln!(out, "- \"{name}\"");
        }
    }
    out.push_str("library_name: transformers\ntags:\n- mergekit\n- merge\n- posttrain\n---\n");
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = write!(
        out,
        "# {name}\n\nMerged from the models below with [posttrain]({}), which reads configurations of \
         [mergekit](https://github.com/arcee-ai/mergekit).\n\n## Method\n\n{}",
        env!("CARGO_PKG_REPOSITORY"),
        method(&manifest.method)
    );
    let base = manifest.inputs.iter().find(|input| input.role == Role::Base);
    if let Some(base) = base {
        let _ = write!(out, ", on the base {}", model(base, &hub));
    }
    out.push_str(".\n\n## Models\n\n");
    for input in &manifest.inputs {
        let _ = writeln!(out, "* {}", model(input, &hub));
    }
    let fence = fence(config);
    let _ = write!(out, "\n## Configuration\n\n{fence}yaml\n{}\n{fence}\n", config.trim_end());
    let contents = &manifest.output.contents;
    let _ = write!(
        out,
        "\n## Provenance\n\n\
         | | |\n|---|---|\n\
         | Content hash | `{}` |\n| Tensors | {} |\n| Created | {} |\n| posttrain-merge | {} |\n| Seed | {} |\n\n\
         `{}` has the hashes of every tensor of this model and of the models that it was merged from. The content hash \
         does not depend on files, shards and names of folders. It is the BLAKE3 of one line for each tensor, sorted by \
         name: name, type, shape (`4096,32`) and BLAKE3 of the tensor's bytes, with a tab between them and a line feed at \
         the end. posttrain's example `merge` compares all of it with `--verify`.\n",
        contents.content,
        contents.tensors.len(),
        manifest.created,
        manifest.version,
        manifest.seed,
        crate::manifest::FILE,
    );
    out
}

/// The method's name, with a link to where it is from.
fn method(name: &str) -> String {
    let (title, link) = match name {
        "linear" => ("Linear", "https://arxiv.org/abs/2203.05482"),
        "slerp" => ("SLERP", "https://en.wikipedia.org/wiki/Slerp"),
        "nuslerp" => ("NuSLERP", ""),
        "multislerp" => {
            ("Multi-SLERP", "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea")
        }
        "karcher" => ("Karcher mean", "https://arxiv.org/abs/2603.04972"),
        "task_arithmetic" => ("Task arithmetic", "https://arxiv.org/abs/2212.04089"),
        "ties" => ("TIES", "https://arxiv.org/abs/2306.01708"),
        "dare_linear" => ("DARE, linear", "https://arxiv.org/abs/2311.03099"),
        "dare_ties" => ("DARE with TIES", "https://arxiv.org/abs/2311.03099"),
        "della" => ("DELLA", "https://arxiv.org/abs/2406.11617"),
        "della_linear" => ("DELLA, linear", "https://arxiv.org/abs/2406.11617"),
        "breadcrumbs" => ("Model Breadcrumbs", "https://arxiv.org/abs/2312.06795"),
        "breadcrumbs_ties" => ("Model Breadcrumbs with TIES", "https://arxiv.org/abs/2312.06795"),
        "model_stock" => ("Model Stock", "https://arxiv.org/abs/2403.19522"),
        "sce" => ("SCE", "https://arxiv.org/abs/2408.07990"),
        "ram" => ("RAM", "https://arxiv.org/abs/2601.13572"),
        "ramplus_tl" => ("RAM+, by tensor", "https://arxiv.org/abs/2601.13572"),
        "nearswap" => ("NearSwap", "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001"),
        "arcee_fusion" => ("Arcee Fusion", "https://arcee.ai"),
        "passthrough" => ("Passthrough", ""),
        // A method of the caller's own.
        _ => return format!("`{name}`"),
    };
    match link {
        "" => format!("{title} (`{name}`)"),
        _ => format!("[{title}]({link}) (`{name}`)"),
    }
}

/// A model in Markdown, linked if it is on the hub.
fn model(input: &InputRecord, hub: &[String]) -> String {
    let one = |name: &str| {
        let known = hub.iter().any(|known| known == name);
        if known { format!("[{name}](https://huggingface.co/{name})") } else { code(name) }
    };
    let (model, lora) = parts(input);
    let mut text = one(model);
    if let Some((lora, _)) = lora {
        let _ = write!(text, " with the adapter {}", one(lora));
    }
    let content = input.contents.content.to_hex();
    let _ = write!(text, ", content `{}`", &content[..16]);
    text
}

/// The names of a model and its adapter, the latter with its folder.
fn parts(input: &InputRecord) -> (&str, Option<(&str, &PathBuf)>) {
    match (&input.lora, input.name.split_once('+')) {
        (Some(path), Some((model, lora))) => (model, Some((lora, path))),
        _ => (&input.name, None),
    }
}

/// The models of the hub, each once, in their order.
fn hub_names(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for input in &manifest.inputs {
        let (model, lora) = parts(input);
        for (name, path) in [Some((model, &input.path)), lora].into_iter().flatten() {
            if is_on_hub(name, path) && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Whether `name` is a name on the hub and no path to the folder `path`.
fn is_on_hub(name: &str, path: &Path) -> bool {
    let part = |part: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(inside)
    };
    let named = name.split('/').count() <= 2 && name.split('/').all(part);
    named && (!path.ends_with(name) || path.join(".cache/huggingface").is_dir())
}

/// Text as code, whatever is in it.
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let ticks = "`".repeat(longest_ticks(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// A fence that no line of `text` closes.
fn fence(text: &str) -> String {
    "`".repeat((longest_ticks(text) + 1).max(3))
}

fn longest_ticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_and_paths() {
        let elsewhere = Path::new("/cache/models--org--a/snapshots/1");
        assert!(is_on_hub("org/a-7B_v0.1", elsewhere));
        assert!(is_on_hub("gpt2", elsewhere));
        for name in ["/models/a", "./a", "~/a", "a/b/c", "org/a b", "", "org/", "../a", "a\"b"] {
            assert!(!is_on_hub(name, elsewhere), "{name}");
        }
        // A relative path.
        assert!(!is_on_hub("merges/a", Path::new("/home/merges/a")));
    }

    #[test]
    fn code_and_fences_hold_backticks() {
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("a``b"), "```a``b```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(fence("a: '```'"), "````");
        assert_eq!(fence("a: 1"), "```");
    }
}
