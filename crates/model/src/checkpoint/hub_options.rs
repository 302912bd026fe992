//! Where the hub and its cache are, from options and the environment variables of Hugging Face.

use std::fmt;
use std::path::PathBuf;

/// How to reach the hub; what is `None` comes from the environment as in `huggingface_hub`.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// A branch, tag or commit; `main` by default.
    pub revision: Option<String>,
    /// `HF_ENDPOINT`, or `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// `HF_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or
    /// `~/.cache/huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// `HF_TOKEN`, or what `hf auth login` has stored; an empty one asks without a token.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`: look only into the cache.
    pub offline: Option<bool>,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            // A secret.
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish()
    }
}

/// Options without holes.
pub(super) struct Settings {
    pub(super) revision: String,
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
}

impl Settings {
    /// `None` without a cache folder, which needs a home.
    pub(super) fn new(
        options: &HubOptions,
        env: impl Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Option<Self> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let folder = |name: &str| {
            let value = env(name)?;
            let below_home = value.strip_prefix("~/").zip(home.as_ref());
            Some(below_home.map_or_else(|| PathBuf::from(&value), |(rest, home)| home.join(rest)))
        };
        let hf_home = folder("HF_HOME").or_else(|| {
            let cache = folder("XDG_CACHE_HOME");
            let cache = cache.or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let cache = options.cache_dir.clone();
        let cache = cache
            .or_else(|| folder("HF_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))?;
        let endpoint = options.endpoint.clone().or_else(|| env("HF_ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let stored = || {
            let path = folder("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            std::fs::read_to_string(path).ok()
        };
        let token = options.token.clone().or_else(|| env("HF_TOKEN")).or_else(stored);
        let offline = || env("HF_HUB_OFFLINE").or_else(|| env("TRANSFORMERS_OFFLINE"));
        let is_true = |value: String| {
            ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
        };
        Some(Self {
            revision: options.revision.clone().unwrap_or_else(|| "main".to_owned()),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: options.offline.unwrap_or_else(|| offline().is_some_and(is_true)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &HubOptions, variables: &[(&str, &str)]) -> Settings {
        let env = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::new(options, env, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_environment_is_that_of_huggingface_hub() {
        let none = HubOptions::default();
        let plain = settings(&none, &[]);
        assert_eq!(plain.cache, PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!((plain.revision.as_str(), plain.token, plain.offline), ("main", None, false));
        let cache = |variables: &[(&str, &str)]| settings(&none, variables).cache;
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/c")]), PathBuf::from("/c/huggingface/hub"));
        assert_eq!(
            cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")]),
            PathBuf::from("/home/me/hf/hub")
        );
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        let set = settings(
            &none,
            &[("HF_ENDPOINT", "http://m/"), ("HF_TOKEN", " t\n"), ("HF_HUB_OFFLINE", "yes")],
        );
        assert_eq!(
            (set.endpoint.as_str(), set.token.as_deref(), set.offline),
            ("http://m", Some("t"), true)
        );
        let options = HubOptions {
            token: Some(String::new()),
            offline: Some(false),
            cache_dir: Some("/mine".into()),
            ..HubOptions::default()
        };
        let over = settings(
            &options,
            &[("HF_TOKEN", "t"), ("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", "/c")],
        );
        assert_eq!((over.cache, over.token, over.offline), ("/mine".into(), None, false));
        assert!(Settings::new(&none, |_| None, None).is_none());
    }

    #[test]
    fn a_stored_token_is_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "stored\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let settings = settings(&HubOptions::default(), &[("HF_HOME", home)]);
        assert_eq!(settings.token.as_deref(), Some("stored"));
        let options = HubOptions { token: Some("secret".into()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
