//! The JSON schema of the configuration file: with it an editor completes keys, shows their meaning, marks mistakes.
//!
//! The nouns have theirs in the [`model`](crate::model); here are the tables of the file.

use schemars::json_schema;
use serde_json::{Value, json};

use super::{Config, MAX_PROFILES};
use crate::model::names;
use crate::model::schema::{self, tables};
use crate::model::{ImpairConfig, InlineConfig, MAX_INLINES, MirrorConfig, PortConfig, ProfileConfig, SwitchConfig};

impl Config {
    /// The JSON schema of the file. Every file that [`Config::parse`] takes is valid by it; of the mistakes that it
    /// refuses, those that one value shows.
    pub fn schema() -> Value {
        schema::document("The configuration file of labswd", |generator| {
            let name = names::port_schema();
            let port = PortConfig::schema(generator);
            let mirror = MirrorConfig::schema(generator);
            let inline = InlineConfig::schema(generator);
            let profile = ProfileConfig::schema(generator);
            let impairment = ImpairConfig::schema(generator);
            let described = |mut table: schemars::Schema, what: &str| {
                table.insert("description".to_owned(), json!(what));
                table
            };
            json_schema!({
                "type": "object",
                "properties": {
                    "switch": described(SwitchConfig::schema(generator), "What concerns the switch as a whole."),
                    "ports": described(tables(&name, &port, labsw_switch::MAX_PORTS), "The ports, by name."),
                    "mirrors": described(
                        tables(&name, &mirror, labsw_switch::MAX_MIRRORS),
                        "The mirrors, by name: what is copied, and where to.",
                    ),
                    "inline": described(
                        tables(&name, &inline, MAX_INLINES),
                        "Sensors in the wires of ports, by name: what a port sends and gets goes through its sensor.",
                    ),
                    "profiles": described(
                        tables(&name, &profile, MAX_PROFILES),
                        "Sets of impairments with a name; `default`, `constrained` and `lossy` are there anyway.",
                    ),
                    "impair": described(
                        tables(&name, &impairment, labsw_switch::MAX_PORTS),
                        "The impairments, by the name of the port.",
                    ),
                },
                "additionalProperties": false
            })
        })
    }
}
