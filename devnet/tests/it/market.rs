//! The market's contracts as they stand on a fresh devnet, through the typed client.

use std::{fs, path::Path, time::Duration};

use client::{events::follow, Account, Call, Client, Network, Wallet};
use devnet::{dev_address, Config, Devnet, Running, DEV_ACCOUNTS, FAUCET};
use futures::StreamExt;
use schema::{
    escrow::{self, Holder, Reason},
    registry, staking, Event, ModelId, UFUNC,
};

struct Market {
    running: Running,
    client: Client,
}

fn params() -> schema::params::Params {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../params/local.toml");
    toml::from_str(&fs::read_to_string(profile).unwrap()).unwrap()
}

async fn start() -> Market {
    let config = Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        block_time: Duration::from_millis(40),
        market: Some(params()),
        ..Config::default()
    };
    let running = Devnet::start(config).await.unwrap();
    let network: Network = serde_json::from_value(running.network().clone()).unwrap();
    let client = Client::connect(network).await.unwrap();
    Market { running, client }
}

impl Market {
    fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(name))
    }

    /// FUNC sent with a message to one of the contracts.
    fn func<M: serde::Serialize>(&self, contract: &str, amount: u128, msg: &M) -> Call {
        Call::cw20_send(&self.client.contracts().func_token, contract, amount, msg).unwrap()
    }
}

#[tokio::test]
async fn the_network_file_names_five_contracts_that_know_each_other() {
    let market = start().await;
    let client = &market.client;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.json");
    client.network().save(&file).unwrap();
    let network = Network::load(&file).unwrap();
    assert_eq!(network.rpc, market.running.rpc_url());
    let names = [
        "func-token",
        "model-registry",
        "provider-staking",
        "royalty-escrow",
        "job-orchestrator",
    ];
    for (address, name) in network.contracts.addresses().iter().zip(names) {
        let version = client.cw2(address).await.unwrap();
        assert!(version.contract.ends_with(name), "{} is not {name}", version.contract);
        assert_eq!(client.contract_info(address).await.unwrap().label, name);
    }
    let contracts = &network.contracts;
    let staking = client.staking().config().await.unwrap();
    assert_eq!(staking.royalty_escrow.as_ref(), Some(&contracts.royalty_escrow));
    assert_eq!(staking.job_orchestrator.as_ref(), Some(&contracts.job_orchestrator));
    let escrow = client.escrow().config().await.unwrap();
    assert_eq!(escrow.provider_staking.as_ref(), Some(&contracts.provider_staking));
    assert_eq!(escrow.job_orchestrator.as_ref(), Some(&contracts.job_orchestrator));
    assert_eq!(escrow.treasury, dev_address("treasury"));
    let registry = client.registry().config().await.unwrap();
    assert_eq!(registry.royalty_escrow.as_ref(), Some(&contracts.royalty_escrow));
    let orchestrator = client.orchestrator().config().await.unwrap();
    assert_eq!(orchestrator.royalty_escrow, contracts.royalty_escrow);
    assert_eq!(orchestrator.params, params().orchestrator);
}

#[tokio::test]
async fn all_func_is_with_the_development_accounts_and_the_faucet() {
    let market = start().await;
    let mut sum = 0;
    for name in DEV_ACCOUNTS.into_iter().chain([FAUCET]) {
        let address = Wallet::dev(name).address("wasm");
        assert_eq!(address, dev_address(name));
        assert!(market.client.balance(&address, "ustake").await.unwrap() > 1_000_000_000);
        let func = market.client.token().balance(&address).await.unwrap();
        assert!(func >= 1_000_000 * UFUNC);
        sum += func;
    }
    assert_eq!(sum, schema::TOTAL_SUPPLY);
}

#[tokio::test]
async fn a_deposit_is_in_the_ledger_and_in_the_stream() {
    let market = start().await;
    let developer = market.account("developer");
    let escrow = &market.client.contracts().royalty_escrow;
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    let call = market.func(escrow, 25 * UFUNC, &deposit);
    let outcome = developer.execute(&[call]).await.unwrap();
    let money = market.client.escrow().money(developer.address()).await.unwrap();
    assert_eq!((money.available.u128(), money.held.u128()), (25 * UFUNC, 0));
    let earnings = market.client.escrow().earnings(developer.address()).await.unwrap();
    assert!(matches!(&earnings[..], [credit] if credit.reason == Reason::Deposit));
    let ledger = market.client.escrow().all_ledger().await.unwrap();
    assert!(matches!(&ledger[..], [entry] if entry.holder == developer.address()));
    let contracts = market.client.contracts().addresses();
    let mut stream = follow(market.client.clone(), contracts, outcome.height);
    let block = stream.next().await.unwrap().unwrap();
    let events: Vec<_> = block.txs.iter().flat_map(|tx| &tx.events).map(|it| &it.event).collect();
    let credited = |event: &&Event| {
        matches!(event, Event::Credited { holder: Holder::Address(holder), reason: Reason::Deposit, amount, .. }
            if holder == developer.address() && amount.u128() == 25 * UFUNC)
    };
    assert_eq!(events.iter().filter(|event| credited(event)).count(), 1, "{events:?}");
}

fn metadata() -> registry::Metadata {
    registry::Metadata {
        title: "A model".into(),
        description: String::new(),
        task: registry::Task::Embeddings,
        licence: "Apache-2.0".into(),
        tags: vec![],
        homepage: None,
        card: None,
    }
}

#[tokio::test]
async fn models_and_providers_are_listed() {
    let market = start().await;
    let (creator, provider) = (market.account("creator"), market.account("provider-1"));
    let contracts = market.client.contracts().clone();
    let claim = registry::ReceiveMsg::ClaimNamespace {
        namespace: "demo".parse().unwrap(),
    };
    let fee = params().registry.namespace_fee.u128();
    let claim = market.func(&contracts.model_registry, fee, &claim);
    let model: ModelId = "demo/model".parse().unwrap();
    let publish = registry::ExecuteMsg::PublishModel {
        model: model.clone(),
        metadata: metadata(),
        payout: vec![registry::Share {
            address: creator.address().into(),
            bps: 10_000,
        }],
        parents: vec![],
    };
    let publish = Call::execute(&contracts.model_registry, &publish).unwrap();
    creator.execute(&[claim, publish.clone()]).await.unwrap();
    let models = market.client.registry().all_models().await.unwrap();
    assert!(matches!(&models[..], [found] if found.model == model && found.owner == creator.address()));
    let again = creator.execute(&[publish]).await.unwrap_err().to_string();
    assert!(again.contains("demo/model"), "{again}");

    let register = staking::ExecuteMsg::RegisterProvider {
        profile: staking::Profile {
            name: "one".into(),
            endpoint: "http://127.0.0.1:7070".into(),
            host_key: schema::PublicKey(Wallet::dev("host-1").public_key()),
            operator: None,
            hardware: String::new(),
        },
    };
    let register = Call::execute(&contracts.provider_staking, &register).unwrap();
    let bond = market.func(&contracts.provider_staking, 100 * UFUNC, &staking::ReceiveMsg::Bond {});
    provider.execute(&[register, bond]).await.unwrap();
    let providers = market.client.staking().all_providers().await.unwrap();
    assert!(
        matches!(&providers[..], [found] if found.provider == provider.address() && found.bond.u128() == 100 * UFUNC)
    );
    assert_eq!(
        market.client.staking().totals().await.unwrap().bonded.u128(),
        100 * UFUNC
    );
    assert!(market.client.orchestrator().overdue(None).await.unwrap().is_empty());
}

/// The next version of the registry, as far as it says so.
fn next_registry() -> Box<dyn cw_multi_test::Contract<cosmwasm_std::Empty>> {
    use cosmwasm_std::{DepsMut, Env, Response, StdResult};
    use model_registry::contract::{execute, instantiate, query};
    fn migrate(deps: DepsMut<'_>, _: Env, _: schema::msg::MigrateMsg) -> StdResult<Response> {
        cw2::set_contract_version(deps.storage, "model-registry", "999.0.0")?;
        Ok(Response::new())
    }
    Box::new(cw_multi_test::ContractWrapper::new(execute, instantiate, query).with_migrate(migrate))
}

/// Of the first code after those of the market: one for each contract.
const NEW_CODE: u64 = 7;

#[tokio::test]
async fn contracts_own_themselves_and_are_migrated_by_their_own_hand() {
    let mut params = params();
    params.staking.unbonding_seconds = 1;
    for notice in [
        &mut params.registry.migration_notice_seconds,
        &mut params.staking.migration_notice_seconds,
        &mut params.orchestrator.migration_notice_seconds,
    ] {
        *notice = 1;
    }
    let config = Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        block_time: Duration::from_millis(40),
        market: Some(params),
        codes: vec![next_registry],
        ..Config::default()
    };
    let running = Devnet::start(config).await.unwrap();
    let network: Network = serde_json::from_value(running.network().clone()).unwrap();
    let client = Client::connect(network).await.unwrap();
    let market = Market { running, client };
    let contracts = market.client.contracts().clone();
    for (name, address) in contracts.by_name() {
        let own = !["func-token", "royalty-escrow", "randomness-beacon"].contains(&name);
        let info = market.client.contract_info(address).await.unwrap();
        assert_eq!(info.admin, own.then(|| address.to_owned()), "{name}");
    }
    let (admin, stranger) = (market.account("admin"), market.account("developer"));
    let contract = contracts.model_registry.clone();
    for (new, words) in [
        (&stranger, "can not modify contract: unauthorized"),
        (&admin, "new admin is the same as the old"),
    ] {
        let seize = Call::UpdateAdmin {
            contract: contract.clone(),
            admin: new.address().to_owned(),
        };
        let refusal = admin.execute(&[seize]).await.unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
    let propose = registry::ExecuteMsg::ProposeMigration {
        code_id: NEW_CODE,
        msg: b"{}".into(),
    };
    admin
        .execute(&[Call::execute(&contract, &propose).unwrap()])
        .await
        .unwrap();
    let execute = Call::execute(&contract, &registry::ExecuteMsg::ExecuteMigration {}).unwrap();
    let migrated = loop {
        match stranger.execute(std::slice::from_ref(&execute)).await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.to_string().contains("can be executed from"), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let event = migrated.events.iter().find(|event| event.ty == "migrate").unwrap();
    let keys: Vec<&str> = event
        .attributes
        .iter()
        .map(|attribute| attribute.key.as_str())
        .collect();
    assert_eq!(keys, ["_contract_address", "code_id", "msg_index"]);
    let info = market.client.contract_info(&contract).await.unwrap();
    assert_eq!((info.code_id, info.admin), (NEW_CODE, Some(contract.clone())));
    assert_eq!(market.client.cw2(&contract).await.unwrap().version, "999.0.0");
}
