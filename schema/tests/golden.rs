//! The JSON schemas under `json/` are what the types say. `UPDATE_EXPECT=1` writes them anew.

use std::path::PathBuf;

use cosmwasm_schema::{generate_api, schema_for};
use expect_test::expect_file;
use schema::{
    escrow, event::EVENT_NAMES, msg::MigrateMsg, orchestrator, randomness, receipt::Attestation, registry, staking,
    token,
};

fn golden(name: &str, json: String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("json")
        .join(format!("{name}.json"));
    expect_file![path].assert_eq(&format!("{json}\n"));
}

macro_rules! api {
    ($name:literal, $module:ident $(, $migrate:ident)?) => {
        let api = generate_api! {
            name: $name,
            instantiate: $module::InstantiateMsg,
            query: $module::QueryMsg,
            execute: $module::ExecuteMsg,
            $( migrate: $migrate, )?
        };
        golden($name, api.render().to_string().expect("schemas are JSON"));
    };
}

#[test]
fn json_schemas_are_golden() {
    // The token's queries are the cw20 standard's.
    let token = generate_api! { name: "func-token", instantiate: token::InstantiateMsg, execute: token::ExecuteMsg };
    golden("func-token", token.render().to_string().expect("schemas are JSON"));
    api!("model-registry", registry, MigrateMsg);
    api!("provider-staking", staking, MigrateMsg);
    api!("royalty-escrow", escrow);
    api!("job-orchestrator", orchestrator, MigrateMsg);
    api!("randomness-beacon", randomness);
}

#[test]
fn schemas_of_messages_inside_a_cw20_send_are_golden() {
    let hooks = [
        ("model-registry.receive", schema_for!(registry::ReceiveMsg)),
        ("provider-staking.receive", schema_for!(staking::ReceiveMsg)),
        ("royalty-escrow.receive", schema_for!(escrow::ReceiveMsg)),
        ("attestation", schema_for!(Attestation)),
    ];
    for (name, schema) in hooks {
        golden(name, serde_json::to_string_pretty(&schema).unwrap());
    }
}

#[test]
fn event_names_are_golden() {
    golden("events", serde_json::to_string_pretty(EVENT_NAMES).unwrap());
}
