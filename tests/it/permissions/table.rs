//! Every message of every contract, who may send it, and an example.

use cosmwasm_std::{to_json_binary, Addr, Uint128};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg, Logo};
use fxn_tests::{Protocol, Serving, Work, DEVELOPER, FUNC, MODEL, PARENT, PROVIDERS};
use schema::{
    escrow, orchestrator,
    price::{RoyaltyRate, Units},
    registry, staking, ItemId, ModelId,
};
use serde::Serialize;
use serde_json::Value;

pub(crate) fn model() -> ModelId {
    MODEL.parse().unwrap()
}

const ITEM: ItemId = ItemId {
    job: 1,
    shard: 0,
    replica: 0,
};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) contract: &'static str,
    pub(crate) to: Addr,
    pub(crate) message: &'static str,
    pub(crate) who: &'static str,
    /// Somebody who may.
    pub(crate) right: Addr,
    pub(crate) msg: Value,
}

/// Builds rows for one contract.
struct Table<'a> {
    protocol: &'a Protocol,
    contract: &'static str,
    to: Addr,
    rows: Vec<Row>,
}

impl Table<'_> {
    fn row(&mut self, message: &'static str, who: &'static str, right: &Addr, msg: &impl Serialize) {
        self.rows.push(Row {
            contract: self.contract,
            to: self.to.clone(),
            message,
            who,
            right: right.clone(),
            msg: serde_json::to_value(msg).unwrap(),
        });
    }

    /// A message that comes inside a cw20 `Send`.
    fn hook(&mut self, message: &'static str, who: &'static str, right: &Addr, amount: u128, msg: &impl Serialize) {
        let send = Cw20ExecuteMsg::Send {
            contract: self.to.to_string(),
            amount: amount.into(),
            msg: to_json_binary(msg).unwrap(),
        };
        self.row(message, who, right, &send);
        let token = self.protocol.contracts.func_token.clone();
        self.rows.last_mut().unwrap().to = token;
    }

    /// Messages that every contract with an admin has.
    fn admin_rows(&mut self, update: &impl Serialize) {
        let (admin, heir) = (self.protocol.addr("admin"), self.protocol.addr("heir"));
        self.row("update_params", "admin", &admin, update);
        let none = escrow::ExecuteMsg::ProposeAdmin { admin: None };
        self.row("propose_admin", "admin", &admin, &none);
        let accept = escrow::ExecuteMsg::AcceptAdmin {};
        self.row("accept_admin", "the one proposed", &heir, &accept);
    }

    /// Messages that every contract has which can be migrated.
    fn migration_rows(&mut self) {
        let admin = self.protocol.addr("admin");
        let propose = registry::ExecuteMsg::ProposeMigration {
            code_id: self.protocol.next_codes[&self.to],
            msg: b"{}".into(),
        };
        self.row("propose_migration", "admin", &admin, &propose);
        let cancel = registry::ExecuteMsg::CancelMigration {};
        self.row("cancel_migration", "admin", &admin, &cancel);
        let execute = registry::ExecuteMsg::ExecuteMigration {};
        self.row("execute_migration", "anyone, after its date", &admin, &execute);
    }

    fn receive_row(&mut self, msg: &impl Serialize) {
        let receive = escrow::ExecuteMsg::Receive(Cw20ReceiveMsg {
            sender: self.protocol.addr("stranger").into_string(),
            amount: Uint128::new(1_000_000),
            msg: to_json_binary(msg).unwrap(),
        });
        let token = self.protocol.contracts.func_token.clone();
        self.row("receive", "func-token", &token, &receive);
    }
}

pub(crate) fn table(protocol: &Protocol) -> Vec<Row> {
    let contracts = &protocol.contracts;
    let start = |contract, to: &Addr| Table {
        protocol,
        contract,
        to: to.clone(),
        rows: vec![],
    };
    let mut rows = vec![];
    let mut token = start("func-token", &contracts.func_token);
    token_rows(&mut token);
    rows.extend(token.rows);
    let mut registry = start("model-registry", &contracts.model_registry);
    registry_rows(&mut registry);
    rows.extend(registry.rows);
    let mut staking = start("provider-staking", &contracts.provider_staking);
    staking_rows(&mut staking);
    rows.extend(staking.rows);
    let mut escrow = start("royalty-escrow", &contracts.royalty_escrow);
    escrow_rows(&mut escrow);
    rows.extend(escrow.rows);
    let mut orchestrator = start("job-orchestrator", &contracts.job_orchestrator);
    orchestrator_rows(&mut orchestrator);
    rows.extend(orchestrator.rows);
    rows
}

fn token_rows(table: &mut Table<'_>) {
    let protocol = table.protocol;
    let faucet = protocol.addr("faucet");
    let recipient = protocol.addr("heir").into_string();
    let amount = Uint128::new(2_000 * FUNC);
    let contract = protocol.contracts.royalty_escrow.to_string();
    let msg = to_json_binary(&escrow::ReceiveMsg::Deposit { beneficiary: None }).unwrap();
    use Cw20ExecuteMsg as Token;
    let own = "the holder, of its own";
    table.row("transfer", own, &faucet, &Token::Transfer { recipient, amount });
    table.row("burn", own, &faucet, &Token::Burn { amount });
    table.row("send", own, &faucet, &Token::Send { contract, amount, msg });
    token_rows_of_spenders(table);
}

fn token_rows_of_spenders(table: &mut Table<'_>) {
    let protocol = table.protocol;
    let (faucet, heir) = (protocol.addr("faucet"), protocol.addr("heir"));
    let (owner, recipient) = (faucet.to_string(), heir.to_string());
    let amount = Uint128::new(2_000 * FUNC);
    let contract = protocol.contracts.royalty_escrow.to_string();
    let msg = to_json_binary(&escrow::ReceiveMsg::Deposit { beneficiary: None }).unwrap();
    use Cw20ExecuteMsg as Token;
    let allowed = "a spender, what it was allowed";
    let nobody = "nobody";
    let spender = recipient.clone();
    let allow = Token::IncreaseAllowance {
        spender: spender.clone(),
        amount,
        expires: None,
    };
    table.row("increase_allowance", "anyone", &faucet, &allow);
    let forbid = Token::DecreaseAllowance {
        spender,
        amount,
        expires: None,
    };
    table.row("decrease_allowance", "anyone", &faucet, &forbid);
    table.row(
        "transfer_from",
        allowed,
        &heir,
        &Token::TransferFrom {
            owner: owner.clone(),
            recipient: recipient.clone(),
            amount,
        },
    );
    table.row(
        "send_from",
        allowed,
        &heir,
        &Token::SendFrom {
            owner: owner.clone(),
            contract,
            amount,
            msg,
        },
    );
    table.row("burn_from", allowed, &heir, &Token::BurnFrom { owner, amount });
    let mint = Token::Mint { recipient, amount };
    table.row("mint", nobody, &faucet, &mint);
    table.row(
        "update_minter",
        nobody,
        &faucet,
        &Token::UpdateMinter { new_minter: None },
    );
    table.row(
        "update_marketing",
        nobody,
        &faucet,
        &Token::UpdateMarketing {
            project: None,
            description: None,
            marketing: None,
        },
    );
    let logo = Logo::Url("https://function.example/logo.svg".into());
    table.row("upload_logo", nobody, &faucet, &Token::UploadLogo(logo));
}

fn registry_rows(table: &mut Table<'_>) {
    use registry::ExecuteMsg as Registry;
    let protocol = table.protocol;
    let (admin, clara) = (protocol.addr("admin"), protocol.addr("clara"));
    let known: registry::ModelResponse = protocol.ask(&table.to, &registry::QueryMsg::Model { model: model() });
    let escrow = protocol.contracts.royalty_escrow.clone();
    let owner = "owner of the model";
    let wire = Registry::Wire {
        royalty_escrow: escrow.to_string(),
    };
    table.row("wire", "admin, once", &admin, &wire);
    let claim = registry::ReceiveMsg::ClaimNamespace {
        namespace: "new".parse().unwrap(),
    };
    table.receive_row(&claim);
    table.hook("receive/claim_namespace", "anyone", &admin, 10 * FUNC, &claim);
    let metadata = known.metadata.clone();
    let publish = Registry::PublishModel {
        model: "demo/another".parse().unwrap(),
        metadata: metadata.clone(),
        payout: known.payout.clone(),
        parents: vec![],
    };
    table.row("publish_model", "owner of the namespace", &clara, &publish);
    let update = Registry::UpdateMetadata {
        model: model(),
        metadata,
    };
    table.row("update_metadata", owner, &clara, &update);
    registry_rows_of_owners(table, &known);
}

fn registry_rows_of_owners(table: &mut Table<'_>, known: &registry::ModelResponse) {
    use registry::ExecuteMsg as Registry;
    let protocol = table.protocol;
    let (clara, heir) = (protocol.addr("clara"), protocol.addr("heir"));
    let escrow = protocol.contracts.royalty_escrow.clone();
    let owner = "owner of the model";
    let version: registry::VersionResponse = protocol.ask(
        &table.to,
        &registry::QueryMsg::Version {
            model: model(),
            version: 1,
        },
    );
    let publish = Registry::PublishVersion {
        model: model(),
        version: registry::NewVersion {
            manifest: version.manifest,
            manifest_uris: vec![],
            stages: version.stages,
            tolerance: version.tolerance,
            units_per_request_max: version.units_per_request_max,
        },
    };
    table.row("publish_version", owner, &clara, &publish);
    let retire = Registry::RetireVersion {
        model: model(),
        version: 1,
    };
    table.row("retire_version", owner, &clara, &retire);
    let endpoint = Registry::SetEndpoint {
        model: model(),
        endpoint: "embeddings".into(),
        terms: known.endpoints[0].terms,
    };
    table.row("set_endpoint", owner, &clara, &endpoint);
    let payout = Registry::SetPayout {
        model: model(),
        payout: known.payout.clone(),
    };
    table.row("set_payout", owner, &clara, &payout);
    let status = Registry::SetStatus {
        model: model(),
        status: registry::ModelStatus::Paused,
    };
    table.row("set_status", owner, &clara, &status);
    let model = model();
    let propose = Registry::ProposeOwner {
        model: model.clone(),
        owner: None,
    };
    table.row("propose_owner", owner, &clara, &propose);
    let accept = Registry::AcceptOwner { model: model.clone() };
    table.row("accept_owner", "the one proposed", &heir, &accept);
    let usage = registry::Usage {
        model,
        units: Units::default(),
        paid: 1u128.into(),
        sunk: 1u128.into(),
    };
    table.row(
        "record",
        "royalty-escrow",
        &escrow,
        &Registry::Record { usages: vec![usage] },
    );
    let params = protocol.params.registry.clone();
    table.admin_rows(&Registry::UpdateParams { params });
    table.migration_rows();
}

fn staking_rows(table: &mut Table<'_>) {
    use staking::ExecuteMsg as Staking;
    let protocol = table.protocol;
    let (admin, anna) = (protocol.addr("admin"), protocol.addr("anna"));
    let orchestrator = protocol.contracts.job_orchestrator.clone();
    let provider = "a provider, of its own";
    let deployment = protocol.deployment_of("anna");
    let wire = Staking::Wire {
        royalty_escrow: protocol.contracts.royalty_escrow.to_string(),
        job_orchestrator: orchestrator.to_string(),
    };
    table.row("wire", "admin, once", &admin, &wire);
    table.receive_row(&staking::ReceiveMsg::Bond {});
    table.hook("receive/bond", provider, &anna, 1, &staking::ReceiveMsg::Bond {});
    let listed: staking::DeploymentResponse = protocol.ask(&table.to, &staking::QueryMsg::Deployment { deployment });
    let deploy = staking::ReceiveMsg::Deploy { terms: listed.terms };
    table.hook("receive/deploy", provider, &anna, FUNC, &deploy);
    let register = Staking::RegisterProvider {
        profile: protocol.profile("gina"),
    };
    table.row("register_provider", "anyone, once", &protocol.addr("gina"), &register);
    let update = Staking::UpdateProvider {
        profile: protocol.profile("anna"),
    };
    table.row("update_provider", provider, &anna, &update);
    let amount = Uint128::new(1);
    table.row("unbond", provider, &anna, &Staking::Unbond { amount });
    table.row("withdraw", provider, &anna, &Staking::Withdraw {});
    table.row("drain", provider, &anna, &Staking::Drain { deployment });
    table.row("remove", provider, &anna, &Staking::Remove { deployment });
    let carl = protocol.addr("carl");
    let provider = carl.to_string();
    table.row(
        "unjail",
        "a provider or its operator",
        &carl,
        &Staking::Unjail { provider },
    );
    let other = ItemId { job: 2, ..ITEM };
    let occupation = staking::Occupation {
        item: other,
        deployments: vec![deployment],
    };
    let occupy = Staking::Occupy {
        items: vec![occupation],
    };
    table.row("occupy", "job-orchestrator", &orchestrator, &occupy);
    let item = protocol.item(ITEM);
    let vacancy = staking::Vacancy {
        item: ITEM,
        deployments: item.spans.iter().map(|span| span.deployment).collect(),
        ended: staking::Ended::Unpaid {},
    };
    let vacate = Staking::Vacate { items: vec![vacancy] };
    table.row("vacate", "job-orchestrator", &orchestrator, &vacate);
    let escrow = protocol.contracts.royalty_escrow.clone();
    let (session, deployments) = (1, vec![deployment]);
    let reserve = Staking::Reserve {
        session,
        deployments: deployments.clone(),
    };
    table.row("reserve", "royalty-escrow", &escrow, &reserve);
    table.row(
        "free",
        "royalty-escrow",
        &escrow,
        &Staking::Free { session, deployments },
    );
    let work = vec![staking::SettledWork {
        deployment,
        price: Uint128::new(FUNC),
    }];
    let record = Staking::RecordSettled { work };
    table.row("record_settled", "royalty-escrow, job-orchestrator", &escrow, &record);
    let params = protocol.params.staking.clone();
    table.admin_rows(&Staking::UpdateParams { params });
    table.migration_rows();
}

fn escrow_rows(table: &mut Table<'_>) {
    use escrow::ExecuteMsg as Escrow;
    let protocol = table.protocol;
    let (admin, dora) = (protocol.addr("admin"), protocol.addr(DEVELOPER));
    let orchestrator = protocol.contracts.job_orchestrator.clone();
    let staking = protocol.contracts.provider_staking.clone();
    let wire = Escrow::Wire {
        job_orchestrator: orchestrator.to_string(),
        provider_staking: staking.to_string(),
    };
    table.row("wire", "admin, once", &admin, &wire);
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    table.receive_row(&deposit);
    table.hook("receive/deposit", "anyone", &admin, FUNC, &deposit);
    let penalty = escrow::ReceiveMsg::Penalty {
        beneficiary: dora.to_string(),
        item: ITEM,
        keeper: None,
    };
    table.hook("receive/penalty", "provider-staking", &staking, FUNC, &penalty);
    let amount = Some(Uint128::new(FUNC));
    table.row(
        "withdraw",
        "the holder, of its own",
        &dora,
        &Escrow::Withdraw { amount },
    );
    let hold = Escrow::Hold {
        job: 2,
        account: dora.to_string(),
        amount: FUNC.into(),
        terms: escrow::WorkTerms {
            model: model(),
            royalty: RoyaltyRate {
                royalty_bps: 0,
                royalty_per_1k_units: 0u128.into(),
            },
            gateway: None,
        },
        expires_at: protocol.now() + 10,
    };
    table.row("hold", "job-orchestrator", &orchestrator, &hold);
    escrow_rows_of_work(table);
}

fn escrow_rows_of_work(table: &mut Table<'_>) {
    use escrow::ExecuteMsg as Escrow;
    let protocol = table.protocol;
    let (admin, dora) = (protocol.addr("admin"), protocol.addr(DEVELOPER));
    let orchestrator = protocol.contracts.job_orchestrator.clone();
    let registry = protocol.contracts.model_registry.clone();
    let settlement = escrow::Settlement {
        item: ITEM,
        units: Units {
            requests: 1,
            units_in: 1,
            units_out: 0,
        },
        spans: vec![escrow::SettledSpan {
            provider: protocol.addr(PROVIDERS[0]).into_string(),
            deployment: 1,
            compute_share_bps: 10_000,
            ask: Serving::stages(0, 0).ask(),
        }],
    };
    let settle = Escrow::Settle {
        settlements: vec![settlement],
    };
    table.row("settle", "job-orchestrator", &orchestrator, &settle);
    table.row(
        "release",
        "job-orchestrator",
        &orchestrator,
        &Escrow::Release { job: 1 },
    );
    let release = Escrow::ReleaseExpired { job: 1 };
    table.row("release_expired", "anyone, after its date", &admin, &release);
    session_rows(table);
    let parent: ModelId = PARENT.parse().unwrap();
    let distribute = Escrow::DistributeRoyalties { model: parent.clone() };
    table.row("distribute_royalties", "anyone", &admin, &distribute);
    let under = Escrow::DistributeUnder {
        model: parent,
        payout: vec![registry::Share {
            address: dora.to_string(),
            bps: 10_000,
        }],
        parents: vec![],
    };
    table.row("distribute_under", "model-registry", &registry, &under);
    let params = protocol.params.escrow.clone();
    table.admin_rows(&Escrow::UpdateParams { params });
}

fn session_rows(table: &mut Table<'_>) {
    use escrow::ExecuteMsg as Escrow;
    let protocol = table.protocol;
    let (dora, anna) = (protocol.addr(DEVELOPER), protocol.addr("anna"));
    let open = Escrow::OpenSession {
        session: protocol.new_session(&[(1, FUNC)]),
    };
    table.row("open_session", "anyone with money", &dora, &open);
    let top_up = Escrow::TopUp {
        session: 1,
        allocations: Protocol::allocations(&[(1, FUNC), (6, FUNC)]),
    };
    table.row("top_up", "the owner of the session", &dora, &top_up);
    let settle = Escrow::SettleVouchers {
        vouchers: vec![protocol.voucher(1, 1, 1, 10)],
    };
    table.row("settle_vouchers", "anyone", &anna, &settle);
    let close = Escrow::CloseSession {
        session: 1,
        consents: vec![protocol.consent("anna", 1, 1, 0)],
    };
    table.row("close_session", "the owner of the session", &dora, &close);
    let leave = Escrow::LeaveSession {
        session: 1,
        deployment: 1,
    };
    table.row("leave_session", "the provider or its operator", &anna, &leave);
    let finalise = Escrow::FinaliseSession { session: 1 };
    table.row("finalise_session", "anyone, after its date", &anna, &finalise);
    let force = Escrow::ForceRequest {
        session: 1,
        deployments: vec![1, 3, 5],
        rows: vec![b"row".into()],
    };
    table.row("force_request", "the owner of the session", &dora, &force);
    let orchestrator = protocol.contracts.job_orchestrator.clone();
    let hold = Escrow::HoldForced {
        job: 2,
        session: 1,
        spans: vec![],
        expires_at: protocol.now() + 10,
    };
    table.row("hold_forced", "job-orchestrator", &orchestrator, &hold);
    let end = Escrow::EndForced {
        job: 1,
        session: 1,
        outcome: escrow::ForcedOutcome::Failed {},
    };
    table.row("end_forced", "job-orchestrator", &orchestrator, &end);
}

fn orchestrator_rows(table: &mut Table<'_>) {
    use orchestrator::ExecuteMsg as Orchestrator;
    let protocol = table.protocol;
    let dora = protocol.addr(DEVELOPER);
    let submit = Orchestrator::SubmitJob {
        job: Protocol::order(1, 1, 1),
    };
    table.row("submit_job", "anyone with money", &dora, &submit);
    let attestations = vec![protocol.attestation(ITEM, Work::honest(10))];
    let links = attestations[0].links.clone();
    let attest = Orchestrator::SubmitAttestations { attestations };
    table.row("submit_attestations", "anyone", &dora, &attest);
    let evidence = Orchestrator::PostEvidence {
        item: ITEM,
        attempt: 0,
        links,
    };
    table.row("post_evidence", "anyone, in its window", &dora, &evidence);
    let expire = Orchestrator::Expire { item: ITEM };
    table.row("expire", "anyone, when overdue", &dora, &expire);
    let prune = Orchestrator::Prune { jobs: vec![1] };
    table.row("prune", "anyone, after its date", &dora, &prune);
    let escrow = protocol.contracts.royalty_escrow.clone();
    let open = Orchestrator::OpenForced {
        request: protocol.forced_request(1, &[1, 3, 5]),
    };
    table.row("open_forced", "royalty-escrow", &escrow, &open);
    let params = protocol.params.orchestrator.clone();
    table.admin_rows(&Orchestrator::UpdateParams { params });
    table.migration_rows();
}
