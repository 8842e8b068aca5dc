//! Everything that is wrong with a message is said in a sentence that names the fact and its numbers, and nothing has changed.
//!
//! The golden table `bad_input.txt` has one line for each: the message, what is wrong, the answer. `UPDATE_EXPECT=1` writes it anew;
//! a vague answer fails here whatever the table says.

mod answers;
mod pruning;
mod sessions;

use cosmwasm_std::{Decimal, Uint128};
use cw20::Cw20ExecuteMsg;
use expect_test::expect_file;
use fxn_tests::{Host, Protocol, Serving, DEVELOPER, FUNC, MODEL, PARENT};
use schema::{
    escrow, orchestrator,
    price::{RoyaltyRate, RATE_MAX},
    registry::{self, EndpointTerms, Unit},
    staking, ModelId,
};

use self::answers::{picture, Table};
use crate::permissions::table::{model, table};

fn orders(table: &mut Table) {
    let text = |bytes: Vec<u8>| vec![cosmwasm_std::Binary::from(bytes)];
    table.job("unknown model", |job| job.model = "demo/none".parse().unwrap());
    table.job("unknown version", |job| job.version = Some(9));
    table.job("version zero", |job| job.version = Some(0));
    table.job("unknown endpoint", |job| job.endpoint = "chat".into());
    table.job("endpoint of 10 000 bytes", |job| job.endpoint = "e".repeat(10_000));
    table.job("no shards", |job| job.shards.clear());
    table.job("a shard without rows", |job| job.shards[1].inline.clear());
    table.job("a row above 8 KiB", |job| {
        job.shards[1].inline = text(vec![b'a'; 8_193])
    });
    table.job("rows above 8 KiB together", |job| {
        job.shards[0].inline = vec![cosmwasm_std::Binary::from(vec![b'a'; 5_000]); 2];
    });
    table.job("a row that is no text", |job| job.shards[1].inline = text(vec![0xff]));
    table.job("65 shards", |job| job.shards = vec![job.shards[0].clone(); 65]);
    table.job("no replicas", |job| job.replicas = 0);
    table.job("four replicas", |job| job.replicas = 4);
    table.job("no units", |job| job.units_max = 0);
    table.job("all units there are", |job| job.units_max = u64::MAX);
    table.job("no price", |job| job.max_price = Uint128::zero());
    table.job("a price that nobody asks", |job| job.max_price = 2_000u128.into());
    table.job("a price that nobody has", |job| job.max_price = Uint128::MAX);
    table.job("a deadline in the past", |job| job.deadline_seconds = Some(0));
    table.job("a deadline before inclusion", |job| job.deadline_seconds = Some(4));
    table.job("a class with a bell", |job| job.engine_class = Some("\u{7}".into()));
    table.job("an empty class", |job| job.engine_class = Some(String::new()));
    table.job("a class that nobody has", |job| {
        job.engine_class = Some("abacus".into())
    });
    table.job("a chain of nobody", |job| job.chain = Some(vec![]));
    table.job("a chain of 4", |job| job.chain = Some(vec![1; 4]));
    table.job("a chain for two replicas", |job| {
        (job.chain, job.replicas) = (Some(vec![1, 3, 5]), 2);
    });
    table.job("a chain with a stranger", |job| job.chain = Some(vec![1, 3, 77]));
    table.job("a chain with a gap", |job| job.chain = Some(vec![1, 5]));
    table.job("a chain that ends early", |job| job.chain = Some(vec![1, 3]));
    table.job("a gateway that takes too much", |job| {
        let address = "wasm1x".into();
        job.gateway = Some(escrow::Gateway { address, bps: 2_001 });
    });
}

fn deployments(table: &mut Table) {
    table.deploy("unknown model", |terms| terms.model = "demo/none".parse().unwrap());
    table.deploy("unknown version", |terms| terms.version = 7);
    table.deploy("stages that are not there", |terms| (terms.first, terms.last) = (2, 3));
    table.deploy("stages the wrong way round", |terms| (terms.first, terms.last) = (2, 1));
    table.deploy("no slots", |terms| terms.slots = 0);
    table.deploy("1001 slots", |terms| terms.slots = 1_001);
    table.deploy("more slots than bond", |terms| terms.slots = 900);
    table.deploy("an empty class", |terms| terms.engine_class.clear());
    table.deploy("a class of 129 bytes", |terms| terms.engine_class = "c".repeat(129));
    table.deploy("a rate beyond all FUNC", |terms| {
        terms.ask.per_1k_out = (RATE_MAX + 1).into()
    });
    table.deploy("a slot kept for nothing", |terms| {
        terms.reservation_per_hour = Uint128::zero()
    });
    table.deploy("an SLA of two hours", |terms| terms.sla.base_seconds = 7_200);
    table.deploy("an SLA without units", |terms| terms.sla.units_max = 0);
    table.deploy("a penalty of nothing", |terms| terms.sla.penalty_bps = 0);
    table.deploy("a penalty above the price", |terms| terms.sla.penalty_bps = 10_001);
    let staking = table.protocol.contracts.provider_staking.clone();
    let terms = Serving::stages(0, 0).terms();
    let deploy = staking::ReceiveMsg::Deploy { terms };
    for (wrong, amount) in [
        ("one ufunc less than the fee", FUNC - 1),
        ("twice the fee", 2 * FUNC),
        ("no fee", 0),
    ] {
        table.refuses_sent("anna", &staking, amount, "deploy", wrong, &deploy);
    }
    table.refuses_sent("stranger", &staking, FUNC, "deploy", "not a provider", &deploy);
    table.refuses_sent("anna", &staking, 0, "bond", "no amount", &staking::ReceiveMsg::Bond {});
    table.refuses_sent(
        "stranger",
        &staking,
        1,
        "bond",
        "not a provider",
        &staking::ReceiveMsg::Bond {},
    );
}

fn providers(table: &mut Table) {
    table.profile("no name", |profile| profile.name.clear());
    table.profile("a name of 65 bytes", |profile| profile.name.push_str(&"n".repeat(61)));
    table.profile("a name with a line break", |profile| profile.name.push('\n'));
    table.profile("an endpoint that is no URL", |profile| {
        profile.endpoint = "x.example:1".into()
    });
    table.profile("a file as endpoint", |profile| {
        profile.endpoint = "file:///etc/passwd".into()
    });
    table.profile("a key that is no key", |profile| profile.host_key.0[0] = 9);
    table.profile("hardware of 257 bytes", |profile| profile.hardware = "h".repeat(257));
    let staking = table.protocol.contracts.provider_staking.clone();
    use staking::ExecuteMsg as Staking;
    let twice = Staking::RegisterProvider {
        profile: table.protocol.profile("anna"),
    };
    table.refuses("anna", &staking, "register_provider", "twice", &twice);
    let rows = [
        (
            "unbond",
            "no amount",
            Staking::Unbond {
                amount: Uint128::zero(),
            },
        ),
        ("unbond", "all numbers", Staking::Unbond { amount: Uint128::MAX }),
        ("withdraw", "nothing is due", Staking::Withdraw {}),
        (
            "unjail",
            "not jailed",
            Staking::Unjail {
                provider: table.protocol.addr("anna").into_string(),
            },
        ),
        (
            "unjail",
            "somebody else",
            Staking::Unjail {
                provider: table.protocol.addr("bea").into_string(),
            },
        ),
        (
            "unjail",
            "not a provider",
            Staking::Unjail {
                provider: table.protocol.addr("stranger").into_string(),
            },
        ),
        (
            "unjail",
            "no address",
            Staking::Unjail {
                provider: "nobody".to_owned(),
            },
        ),
        ("drain", "unknown deployment", Staking::Drain { deployment: u64::MAX }),
        ("drain", "somebody else's", Staking::Drain { deployment: 3 }),
    ];
    for (message, wrong, msg) in rows {
        table.refuses("anna", &staking, message, wrong, &msg);
    }
    let item = schema::ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    };
    let span = table.protocol.item(item).spans.remove(0);
    let busy = Staking::Remove {
        deployment: span.deployment,
    };
    let owner = ["anna", "axel"].map(|name| (name, table.protocol.addr(name)));
    let (owner, _) = owner
        .into_iter()
        .find(|(_, address)| address.as_str() == span.provider)
        .unwrap();
    table.refuses(owner, &staking, "remove", "busy", &busy);
}

fn models(table: &mut Table) {
    table.publish("no title", |metadata, _, _| metadata.title.clear());
    table.publish("a title with escapes", |metadata, _, _| {
        metadata.title = "\u{1b}[2J".into()
    });
    table.publish("4097 bytes of description", |metadata, _, _| {
        metadata.description = "d".repeat(4_097)
    });
    table.publish("nine tags", |metadata, _, _| {
        metadata.tags = (0..9).map(|tag| tag.to_string()).collect()
    });
    table.publish("a tag twice", |metadata, _, _| {
        metadata.tags = vec!["a".into(), "a".into()]
    });
    table.publish("nobody is paid", |_, payout, _| payout.clear());
    table.publish("nine are paid", |_, payout, _| *payout = vec![payout[0].clone(); 9]);
    table.publish("shares below the whole", |_, payout, _| payout[0].bps -= 1);
    table.publish("shares above the whole", |_, payout, _| payout[0].bps += 1);
    table.publish("a share of nothing", |_, payout, _| payout[0].bps = 0);
    table.publish("a recipient twice", |_, payout, _| {
        payout[1].address = payout[0].address.clone()
    });
    table.publish("an unknown parent", |_, _, parents| {
        parents[0].model = "demo/none".parse().unwrap()
    });
    table.publish("a parent twice", |_, _, parents| parents.push(parents[0].clone()));
    table.publish("parents take too much", |_, _, parents| parents[0].bps = 10_001);
    table.publish("five parents", |_, _, parents| *parents = vec![parents[0].clone(); 5]);
    table.version("no stages", |version| version.stages.clear());
    table.version("33 stages", |version| version.stages = vec![version.stages[0]; 33]);
    table.version("shares below the whole", |version| {
        version.stages[0].compute_share_bps -= 1
    });
    table.version("a stage without a share", |version| {
        version.stages[0].compute_share_bps = 0
    });
    table.version("no tolerance", |version| version.tolerance = Decimal::zero());
    table.version("a tolerance of all numbers", |version| version.tolerance = Decimal::MAX);
    table.version("no units", |version| version.units_per_request_max = 0);
    table.version("all units", |version| version.units_per_request_max = u64::MAX);
    table.version("an empty URI", |version| version.manifest_uris = vec![String::new()]);
    let unknown: ModelId = "demo/none".parse().unwrap();
    use registry::ExecuteMsg as Registry;
    let retire = |model: ModelId, version| Registry::RetireVersion { model, version };
    table.registry("retire_version", "unknown version", &retire(model(), 9));
    table.registry("retire_version", "unknown model", &retire(unknown.clone(), 1));
    let endpoint = |endpoint: &str, bps, per_1k: u128| Registry::SetEndpoint {
        model: model(),
        endpoint: endpoint.into(),
        terms: EndpointTerms {
            unit: Unit::Token,
            royalty: RoyaltyRate {
                royalty_bps: bps,
                royalty_per_1k_units: per_1k.into(),
            },
        },
    };
    table.registry("set_endpoint", "a name with a slash", &endpoint("a/b", 0, 0));
    table.registry(
        "set_endpoint",
        "a royalty above the compute",
        &endpoint("chat", 10_001, 0),
    );
    table.registry(
        "set_endpoint",
        "a royalty beyond all FUNC",
        &endpoint("chat", 0, u128::MAX),
    );
    let pay = Registry::SetPayout {
        model: model(),
        payout: vec![],
    };
    table.registry("set_payout", "nobody is paid", &pay);
    let registry = table.protocol.contracts.model_registry.clone();
    let claim = |name: &str| registry::ReceiveMsg::ClaimNamespace {
        namespace: name.parse().unwrap(),
    };
    table.refuses_sent(
        "mallory",
        &registry,
        10 * FUNC,
        "claim_namespace",
        "taken",
        &claim("demo"),
    );
    table.refuses_sent(
        "mallory",
        &registry,
        FUNC,
        "claim_namespace",
        "below the fee",
        &claim("new"),
    );
}

fn money(table: &mut Table) {
    let contracts = table.protocol.contracts.clone();
    let (escrow, token) = (contracts.royalty_escrow.clone(), contracts.func_token);
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    table.refuses_sent("mallory", &escrow, 0, "deposit", "no amount", &deposit);
    table.refuses_sent("mallory", &escrow, u128::MAX, "deposit", "more than there is", &deposit);
    use escrow::ExecuteMsg as Escrow;
    let withdraw = |amount: u128| Escrow::Withdraw {
        amount: Some(amount.into()),
    };
    let rows = [
        ("withdraw", "no amount", withdraw(0)),
        ("withdraw", "all numbers", withdraw(u128::MAX)),
        ("withdraw", "nothing there", Escrow::Withdraw { amount: None }),
        (
            "release_expired",
            "unknown job",
            Escrow::ReleaseExpired { job: u64::MAX },
        ),
        ("release_expired", "before its date", Escrow::ReleaseExpired { job: 1 }),
        (
            "distribute_royalties",
            "nothing accrued",
            Escrow::DistributeRoyalties {
                model: PARENT.parse().unwrap(),
            },
        ),
        (
            "distribute_royalties",
            "unknown model",
            Escrow::DistributeRoyalties {
                model: "demo/none".parse().unwrap(),
            },
        ),
    ];
    for (message, wrong, msg) in rows {
        table.refuses("mallory", &escrow, message, wrong, &msg);
    }
    // Another token in the place of ours.
    let fake = table.protocol.starts_another_token("mallory");
    for to in [
        &contracts.royalty_escrow,
        &contracts.provider_staking,
        &contracts.model_registry,
    ] {
        let send = Cw20ExecuteMsg::Send {
            contract: to.to_string(),
            amount: (10 * FUNC).into(),
            msg: cosmwasm_std::to_json_binary(&deposit).unwrap(),
        };
        let before = picture(&table.protocol);
        let mallory = table.protocol.addr("mallory");
        let outcome = table.protocol.execute(&mallory, &fake, &send);
        let told = outcome
            .unwrap_err()
            .root_cause()
            .to_string()
            .replace(fake.as_str(), "FAKE");
        assert_eq!(before, picture(&table.protocol));
        assert!(told.contains("FAKE"), "{told}");
    }
    let recipient = escrow.to_string();
    use Cw20ExecuteMsg as Token;
    let spender = table.protocol.addr("anna").into_string();
    let owner = table.protocol.addr(DEVELOPER).into_string();
    let amount = Uint128::MAX;
    let rows = [
        (
            "transfer",
            Token::Transfer {
                recipient: recipient.clone(),
                amount,
            },
        ),
        ("burn", Token::Burn { amount }),
        (
            "burn_from",
            Token::BurnFrom {
                owner: owner.clone(),
                amount,
            },
        ),
        (
            "transfer_from",
            Token::TransferFrom {
                owner,
                recipient,
                amount,
            },
        ),
        (
            "decrease_allowance",
            Token::DecreaseAllowance {
                spender,
                amount,
                expires: None,
            },
        ),
    ];
    for (message, msg) in rows {
        table.refuses("mallory", &token, message, "what is not there", &msg);
    }
}

fn work(table: &mut Table) {
    let orchestrator = table.protocol.contracts.job_orchestrator.clone();
    use orchestrator::ExecuteMsg as Orchestrator;
    let item = schema::ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    };
    let unknown = schema::ItemId { job: 99, ..item };
    let links = table.protocol.links(item, fxn_tests::Work::honest(1));
    let mut forged = links.clone();
    forged[0].receipt.signature = Host::named("mallory").sign(&forged[0].receipt.receipt.digest());
    let evidence = |item, attempt, links: &[schema::receipt::Link]| Orchestrator::PostEvidence {
        item,
        attempt,
        links: links.to_vec(),
    };
    let none = Orchestrator::SubmitAttestations { attestations: vec![] };
    table.refuses("mallory", &orchestrator, "submit_attestations", "none", &none);
    table.refuses(
        "mallory",
        &orchestrator,
        "expire",
        "unknown item",
        &Orchestrator::Expire { item: unknown },
    );
    table.refuses(
        "mallory",
        &orchestrator,
        "expire",
        "before its time",
        &Orchestrator::Expire { item },
    );
    let rows = [
        ("unknown item", evidence(unknown, 0, &links)),
        ("before the deadline", evidence(item, 0, &links)),
        ("another attempt", evidence(item, 1, &links)),
    ];
    for (wrong, msg) in rows {
        table.refuses("mallory", &orchestrator, "post_evidence", wrong, &msg);
    }
    table.protocol.deadline_passes(item);
    for (wrong, msg) in [
        ("no links", evidence(item, 0, &[])),
        ("a forged signature", evidence(item, 0, &forged)),
    ] {
        table.refuses("mallory", &orchestrator, "post_evidence", wrong, &msg);
    }
    table.protocol.posts_evidence(item, links.clone()).unwrap();
    table.refuses(
        "mallory",
        &orchestrator,
        "post_evidence",
        "known already",
        &evidence(item, 0, &links[..1]),
    );
}

/// New code that is not there, comes too soon, or is the wrong one.
fn migrations(table: &mut Table) {
    let contracts = table.protocol.contracts.clone();
    let staking = contracts.provider_staking.clone();
    use staking::ExecuteMsg as Staking;
    let propose = |code_id, bytes: usize| Staking::ProposeMigration {
        code_id,
        msg: vec![b' '; bytes].into(),
    };
    let update = |change: fn(&mut schema::params::StakingParams)| {
        let mut params = Protocol::new().params.staking;
        change(&mut params);
        Staking::UpdateParams { params }
    };
    let rows = [
        ("propose_migration", "a code that is not there", propose(99, 2)),
        ("propose_migration", "code zero", propose(0, 2)),
        ("propose_migration", "a message of 4097 bytes", propose(1, 4_097)),
        ("cancel_migration", "nothing proposed", Staking::CancelMigration {}),
        ("execute_migration", "nothing proposed", Staking::ExecuteMigration {}),
        (
            "update_params",
            "no notice",
            update(|params| params.migration_notice_seconds = 0),
        ),
        (
            "update_params",
            "a notice below the unbonding",
            update(|params| params.migration_notice_seconds = 29),
        ),
        (
            "update_params",
            "a shorter notice",
            update(|params| params.migration_notice_seconds = 34),
        ),
        (
            "update_params",
            "a notice of all seconds",
            update(|params| params.migration_notice_seconds = u64::MAX),
        ),
    ];
    for (message, wrong, msg) in rows {
        table.refuses("admin", &staking, message, wrong, &msg);
    }
    let own = table.protocol.code_of(&staking);
    let msg = Staking::ProposeMigration {
        code_id: own,
        msg: b"{}".into(),
    };
    let admin = table.protocol.addr("admin");
    table.protocol.execute(&admin, &staking, &msg).unwrap();
    let longer = update(|params| params.unbonding_seconds = 31);
    table.refuses("admin", &staking, "propose_migration", "while one is proposed", &msg);
    table.refuses(
        "admin",
        &staking,
        "update_params",
        "a longer unbonding meanwhile",
        &longer,
    );
    let execute = Staking::ExecuteMigration {};
    table.refuses("mallory", &staking, "execute_migration", "before its date", &execute);
    table.protocol.seconds_pass(35);
    table.refuses(
        "mallory",
        &staking,
        "execute_migration",
        "to the same version",
        &execute,
    );
    table
        .protocol
        .execute(&admin, &staking, &Staking::CancelMigration {})
        .unwrap();
    let code_id = table.protocol.next_codes[&contracts.model_registry];
    let msg = Staking::ProposeMigration {
        code_id,
        msg: b"{}".into(),
    };
    table.protocol.execute(&admin, &staking, &msg).unwrap();
    table.protocol.seconds_pass(35);
    table.refuses(
        "mallory",
        &staking,
        "execute_migration",
        "to another contract",
        &execute,
    );
}

/// Every message that has a rightful sender, from somebody else.
fn roles(table: &mut Table) {
    for row in table_of(&table.protocol) {
        let restricted = row.who.starts_with("admin") || row.who.contains('-') || row.who.starts_with("owner");
        if restricted && !row.message.starts_with("receive/") && row.contract != "func-token" {
            table.refuses("mallory", &row.to, row.message, row.who, &row.msg);
        }
    }
}

use table as table_of;

#[test]
fn whatever_is_wrong_is_named_with_its_numbers_and_changes_nothing() {
    let mut protocol = Protocol::with_market();
    protocol.starts(Protocol::order(1, 2, 1));
    let session = protocol.new_session(&[(1, FUNC), (3, FUNC)]);
    protocol.opens_session(DEVELOPER, session);
    for name in ["mallory", "anna", "stranger"] {
        protocol.fund(name, 100 * FUNC);
    }
    let retired: ModelId = PARENT.parse().unwrap();
    let retire = registry::ExecuteMsg::RetireVersion {
        model: retired.clone(),
        version: 1,
    };
    protocol.registry("clara", &retire).unwrap();
    let mut table = Table {
        protocol,
        golden: String::new(),
    };
    orders(&mut table);
    table.job("no version that is not retired", |job| job.model = retired.clone());
    table.job("a retired version", |job| {
        job.model = retired.clone();
        job.version = Some(1);
    });
    deployments(&mut table);
    table.deploy("a retired version", |terms| terms.model = retired.clone());
    providers(&mut table);
    models(&mut table);
    money(&mut table);
    sessions::sessions(&mut table);
    roles(&mut table);
    work(&mut table);
    let status = registry::ExecuteMsg::SetStatus {
        model: MODEL.parse().unwrap(),
        status: registry::ModelStatus::Paused,
    };
    table.protocol.registry("clara", &status).unwrap();
    table.job("a paused model", |_| {});
    migrations(&mut table);
    pruning::pruning(&mut table);
    expect_file!["bad_input.txt"].assert_eq(&table.golden);
}
