//! The JSON schema of a manifest, beside those of the contracts. `UPDATE_EXPECT=1` writes it anew.

use expect_test::expect_file;
use partition::Manifest;
use schemars::schema_for;

#[test]
fn the_schema_of_a_manifest_is_golden() {
    let json = serde_json::to_string_pretty(&schema_for!(Manifest)).expect("a schema is JSON");
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/../schema/json/manifest.json")].assert_eq(&format!("{json}\n"));
}
