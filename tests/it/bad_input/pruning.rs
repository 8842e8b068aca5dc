//! Too many jobs at once, and records that would be gone before their job is, or never.

use schema::orchestrator::ExecuteMsg as Orchestrator;

use super::answers::Table;

pub(super) fn pruning(table: &mut Table) {
    let to = table.protocol.contracts.job_orchestrator.clone();
    for (wrong, jobs) in [("none", vec![]), ("33 jobs", vec![1; 33])] {
        let prune = Orchestrator::Prune { jobs };
        table.refuses("mallory", &to, "prune", wrong, &prune);
    }
    for (wrong, seconds) in [
        ("records of no time", 0),
        ("records shorter than jobs", 1_799),
        ("records for ever", u64::MAX),
    ] {
        let mut params = table.protocol.params.orchestrator.clone();
        params.prune_after_seconds = seconds;
        let update = Orchestrator::UpdateParams { params };
        table.refuses("admin", &to, "update_params", wrong, &update);
    }
    let mut params = table.protocol.params.orchestrator.clone();
    params.keeper_bps = 1_001;
    let update = Orchestrator::UpdateParams { params };
    table.refuses("admin", &to, "update_params", "keepers above a tenth", &update);
}
