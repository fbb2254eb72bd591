//! The settings as flags and environment variables, made from the example, so that none can be forgotten or differ.

use super::NodeConfig;
use super::example::{SETTINGS, Setting};
use crate::failure::Failure;
use clap::{Arg, ArgMatches, Command};
use toml::Value;

/// What flags and variables set; the rest comes from the file and the defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides(Vec<(&'static Setting, String)>);

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| command.arg(argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|s| matches.get_one::<String>(&s.flag).map(|value| (s, value.clone())));
        Ok(Overrides(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.flag.as_str()).long(setting.flag.as_str()).env(setting.variable.as_str()).help_heading("Settings");
    let shown = if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
    let arg = arg.help(format!("{}{shown}", setting.help)).hide_env_values(true);
    match setting.default.as_str() {
        "true" | "false" => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
        "[]" => arg.value_name("A,B,…"),
        "" => arg.value_name("NAME=VALUE,…"),
        default if default.starts_with('"') => arg.value_name("TEXT"),
        _ => arg.value_name("NUMBER"),
    }
}

impl Overrides {
    /// The settings of a file (or the defaults) with these on top.
    pub(crate) fn apply(&self, config: &NodeConfig) -> Result<NodeConfig, Failure> {
        let broken = |error: String| Failure::failed(format!("the settings can't be put together: {error}"));
        let mut all = toml::Table::try_from(config).map_err(|error| broken(error.to_string()))?;
        for (setting, text) in &self.0 {
            let value = parse(setting, text)?;
            let table =
                if setting.section.is_empty() { Some(&mut all) } else { all.get_mut(&setting.section).and_then(Value::as_table_mut) };
            table.ok_or_else(|| broken(format!("no section {}", setting.section)))?.insert(setting.name.clone(), value);
        }
        // What is left to go wrong is a word that is not one of its choices: `--log-format xml`.
        all.try_into().map_err(|error: toml::de::Error| {
            Failure::usage(format!("a flag or variable is wrong: {}", error.message())).hint(super::WHERE_TOLD)
        })
    }
}

/// A value as the default's type has it.
fn parse(setting: &Setting, text: &str) -> Result<Value, Failure> {
    let invalid = |limit: &str| {
        Failure::usage(format!("invalid --{} or {}: must be {limit}, is {text:?}", setting.flag, setting.variable)).hint(super::WHERE_TOLD)
    };
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    match setting.default.as_str() {
        "true" | "false" => text.parse().map(Value::Boolean).map_err(|_| invalid("true or false")),
        "[]" => Ok(Value::Array(items().map(|item| Value::String(item.to_owned())).collect())),
        "" => {
            let pairs = items().map(|item| item.split_once('=').map(|(name, value)| (name.to_owned(), Value::String(value.to_owned()))));
            pairs.collect::<Option<toml::Table>>().map(Value::Table).ok_or_else(|| invalid("name=value, with commas between"))
        }
        default if default.starts_with('"') => Ok(Value::String(text.to_owned())),
        default if default.contains('.') => text.parse().map(Value::Float).map_err(|_| invalid("a number")),
        _ => text.parse().map(Value::Integer).map_err(|_| invalid("a number")),
    }
}
