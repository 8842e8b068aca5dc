//! The state machine: cw-multi-test's `App` over our own [`Store`]. The one file that knows cw-multi-test.
//!
//! Guarantees:
//! - A message that fails or panics leaves no writes.
//! - A panicking contract or an unsupported query is an error, not a crash (`keepers` sees to that).
//! - Contract addresses are the ones wasmd would give, so a deployment has the same addresses on both chains.

use std::panic::{catch_unwind, AssertUnwindSafe};

use cosmwasm_std::{
    Addr, Api, BankMsg, BankQuery, BlockInfo, CanonicalAddr, Coin, CosmosMsg, Empty, Event, Order, Querier,
    QueryRequest, Record, StdResult, Storage, WasmMsg, WasmQuery,
};
use cw_multi_test::{
    error::AnyResult, no_init, AddressGenerator, App, AppBuilder, AppResponse, Contract, DistributionKeeper, Executor,
    FailingModule, GovFailingModule, IbcFailingModule, MockApiBech32, SimpleAddressGenerator, StakeKeeper,
    StargateFailing, WasmKeeper,
};

use crate::{
    addresses::ChainApi,
    code::{self, Refusal},
    keepers::{self, Coins, Contracts, Guarded, Place},
    store::{Store, Written},
    transaction::Message,
    PREFIX,
};

/// Makes a contract's code: `|| Box::new(ContractWrapper::new(execute, instantiate, query))`.
pub type Code = fn() -> Box<dyn Contract<Empty>>;

type Inner = App<
    Coins,
    ChainApi,
    Store,
    FailingModule<Empty, Empty, Empty>,
    Contracts,
    StakeKeeper,
    DistributionKeeper,
    IbcFailingModule,
    GovFailingModule,
    StargateFailing,
>;

/// cw-multi-test counts instances from 0, wasmd from 1.
struct WasmdAddresses;

impl AddressGenerator for WasmdAddresses {
    fn contract_address(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        code_id: u64,
        instance_id: u64,
    ) -> AnyResult<Addr> {
        SimpleAddressGenerator.contract_address(api, storage, code_id, instance_id.saturating_add(1))
    }
}

/// What a message did.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// Events of the contracts and the bank, still without the chain's own marks.
    pub(crate) events: Vec<Event>,
    /// The message's protobuf response.
    pub(crate) data: Vec<u8>,
}

/// What the chain knows of a contract.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) code_id: u64,
    pub(crate) creator: String,
    pub(crate) admin: Option<String>,
    pub(crate) label: String,
    pub(crate) created: u64,
}

/// A code that contracts can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodeInfo {
    pub(crate) id: u64,
    pub(crate) creator: String,
    pub(crate) checksum: Vec<u8>,
}

/// Where cw-multi-test keeps what it knows of each contract: the prefix of its keys.
const CONTRACTS: &[u8] = b"\0\x04wasm\0\x09contracts";

/// Bank, contracts and their state.
pub(crate) struct Machine {
    app: Inner,
    codes: Vec<CodeInfo>,
    place: Place,
}

impl Machine {
    /// A machine with these codes, numbered from 1, and balances.
    pub(crate) fn new(codes: &[Code], balances: &[(String, Coin)], block: BlockInfo) -> AnyResult<Machine> {
        let wasm = WasmKeeper::new().with_address_generator(WasmdAddresses);
        let mut app: Inner = AppBuilder::new()
            .with_api(ChainApi::new())
            .with_storage(Store::default())
            .with_bank(Coins::default())
            .with_wasm(Contracts::new(wasm))
            .with_block(block)
            .build(no_init);
        let creator = module_address("gov")?;
        let place = Place::default();
        let mut known = vec![];
        for code in codes {
            let guarded = Guarded {
                code: code(),
                place: place.clone(),
            };
            let id = app.store_code_with_creator(creator.clone(), Box::new(guarded));
            let info = app.wrap().query_wasm_code_info(id)?;
            known.push(CodeInfo {
                id,
                creator: info.creator.into_string(),
                checksum: info.checksum.as_slice().to_vec(),
            });
        }
        app.init_modules(|router, _, storage| {
            balances.iter().try_for_each(|(address, coin)| {
                let coins = vec![coin.clone()];
                router.bank.0.init_balance(storage, &Addr::unchecked(address), coins)
            })
        })?;
        let codes = known;
        Ok(Machine { app, codes, place })
    }

    /// All codes, by their numbers.
    pub(crate) fn codes(&self) -> &[CodeInfo] {
        &self.codes
    }

    /// Where in its block the transaction stands that runs next; `None` for a simulation.
    pub(crate) fn set_place(&mut self, index: Option<u32>) {
        self.place.set(index);
    }

    /// The digest of everything that was written since the first block.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.app.storage().digest()
    }

    /// The digest of the whole state.
    pub(crate) fn state_digest(&self) -> [u8; 32] {
        self.app.storage().state_digest()
    }

    pub(crate) fn block(&self) -> BlockInfo {
        self.app.block_info()
    }

    pub(crate) fn set_block(&mut self, block: BlockInfo) {
        self.app.set_block(block);
    }

    /// Starts a unit of work that can be taken back.
    pub(crate) fn begin(&mut self) {
        self.app.storage_mut().begin();
    }

    /// Ends it; what it did stays.
    pub(crate) fn keep(&mut self) {
        self.app.storage_mut().keep();
    }

    pub(crate) fn written(&self) -> Written {
        self.app.storage().written()
    }

    pub(crate) fn roll_back(&mut self) {
        self.app.storage_mut().roll_back();
    }

    pub(crate) fn is_address(&self, text: &str) -> bool {
        self.app.api().addr_validate(text).is_ok()
    }

    pub(crate) fn balance(&self, address: &str, denom: &str) -> u128 {
        let query = BankQuery::Balance {
            address: address.to_owned(),
            denom: denom.to_owned(),
        };
        let answer: Result<cosmwasm_std::BalanceResponse, _> = self.app.wrap().query(&QueryRequest::Bank(query));
        answer.map(|balance| balance.amount.amount.u128()).unwrap_or(0)
    }

    /// All coins of a denomination.
    pub(crate) fn supply(&self, denom: &str) -> u128 {
        let query = BankQuery::Supply {
            denom: denom.to_owned(),
        };
        let answer: Result<cosmwasm_std::SupplyResponse, _> = self.app.wrap().query(&QueryRequest::Bank(query));
        answer.map(|supply| supply.amount.amount.u128()).unwrap_or(0)
    }

    /// Moves coins from one account to another, as the payment of a fee is.
    pub(crate) fn transfer(&mut self, from: &str, to: &str, amount: &[Coin]) -> Result<Effect, Refusal> {
        let message = Message::Send {
            to: to.to_owned(),
            amount: amount.to_vec(),
        };
        self.execute(from, &message)
    }

    /// Runs one message. On an error nothing of it stays.
    pub(crate) fn execute(&mut self, sender: &str, message: &Message) -> Result<Effect, Refusal> {
        let (message, entry) = as_multi_test(message.clone());
        let app = &mut self.app;
        let sender = Addr::unchecked(sender);
        match catch_unwind(AssertUnwindSafe(|| app.execute(sender, message))) {
            Ok(Ok(AppResponse { events, data, .. })) => Ok(Effect {
                events,
                data: data.unwrap_or_default().to_vec(),
            }),
            Ok(Err(error)) => Err(keepers::refusal_of(&error).unwrap_or_else(|| entry.with(error.root_cause()))),
            // Nothing is known to come here: the keepers catch what unwinds. It must not end the chain if something does.
            Err(_) => Err(code::VM.with("the message cannot be run")),
        }
    }

    pub(crate) fn instance(&self, address: &str) -> Result<Instance, Refusal> {
        let data = self.app.contract_data(&Addr::unchecked(address));
        let data = data.map_err(|_| code::NO_SUCH_CONTRACT.with(format!("address {address}")))?;
        Ok(Instance {
            code_id: data.code_id,
            creator: data.creator.into_string(),
            admin: data.admin.map(Addr::into_string),
            label: data.label,
            created: data.created,
        })
    }

    pub(crate) fn raw(&self, address: &str, key: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.instance(address)?;
        let storage = self.app.contract_storage(&Addr::unchecked(address));
        Ok(storage.get(key).unwrap_or_default())
    }

    /// Everything that a contract has stored, by ascending key.
    pub(crate) fn dump(&self, address: &str) -> Result<Vec<Record>, Refusal> {
        self.instance(address)?;
        Ok(self.app.dump_wasm_raw(&Addr::unchecked(address)))
    }

    /// Addresses and facts of all contracts, oldest first.
    pub(crate) fn instances(&self) -> Vec<(String, Instance)> {
        let mut end = CONTRACTS.to_vec();
        end.push(u8::MAX);
        let keys = self.app.storage().range(Some(CONTRACTS), Some(&end), Order::Ascending);
        let addresses = keys.filter_map(|(key, _)| String::from_utf8(key.get(CONTRACTS.len()..)?.to_vec()).ok());
        let mut instances: Vec<(String, Instance)> = addresses
            .filter_map(|address| self.instance(&address).ok().map(|instance| (address, instance)))
            .collect();
        instances.sort_by_key(|(_, instance)| instance.created);
        instances
    }

    /// Asks a contract. Its refusal carries its own sentence.
    pub(crate) fn smart(&self, address: &str, query: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.instance(address)?;
        let request: QueryRequest<Empty> = QueryRequest::Wasm(WasmQuery::Smart {
            contract_addr: address.to_owned(),
            msg: query.to_vec().into(),
        });
        let request = cosmwasm_std::to_json_vec(&request).map_err(|error| code::QUERY_FAILED.with(error))?;
        let answer = self.app.raw_query(&request).into_result();
        let answer = answer.map_err(|error| code::QUERY_FAILED.with(error))?;
        let answer = answer.into_result().map(|data| data.to_vec());
        answer.map_err(|sentence| code::QUERY_FAILED.with(sentence))
    }
}

/// The message as cw-multi-test takes it, and what its failure is called.
fn as_multi_test(message: Message) -> (CosmosMsg, code::Code) {
    match message {
        Message::Send { to, amount } => {
            let send = BankMsg::Send { to_address: to, amount };
            (send.into(), code::INSUFFICIENT_FUNDS)
        }
        Message::Execute { contract, msg, funds } => {
            let execute = WasmMsg::Execute {
                contract_addr: contract,
                msg: msg.into(),
                funds,
            };
            (execute.into(), code::EXECUTE_FAILED)
        }
        Message::Instantiate {
            code_id,
            msg,
            label,
            admin,
            funds,
        } => {
            let instantiate = WasmMsg::Instantiate {
                admin,
                code_id,
                msg: msg.into(),
                funds,
                label,
            };
            (instantiate.into(), code::INSTANTIATE_FAILED)
        }
        Message::Migrate { contract, code_id, msg } => {
            let migrate = WasmMsg::Migrate {
                contract_addr: contract,
                new_code_id: code_id,
                msg: msg.into(),
            };
            (migrate.into(), code::MIGRATE_FAILED)
        }
        Message::UpdateAdmin { contract, admin } => {
            let contract_addr = contract;
            let update = match admin {
                Some(admin) => WasmMsg::UpdateAdmin { contract_addr, admin },
                None => WasmMsg::ClearAdmin { contract_addr },
            };
            (update.into(), code::UNAUTHORIZED)
        }
    }
}

/// The account of a module: its name's digest, as the SDK derives it.
pub(crate) fn module_address(name: &str) -> StdResult<Addr> {
    let digest = crate::transaction::hash_of(name.as_bytes());
    let canonical = CanonicalAddr::from(digest.get(..20).unwrap_or_default());
    MockApiBech32::new(PREFIX).addr_humanize(&canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_contract_has_the_address_that_wasmd_gives() {
        let api = MockApiBech32::new(PREFIX);
        let mut storage = Store::default();
        let address = WasmdAddresses.contract_address(&api, &mut storage, 1, 0).unwrap();
        assert_eq!(
            address.as_str(),
            "wasm14hj2tavq8fpesdwxxcu44rty3hh90vhujrvcmstl4zr3txmfvw9s0phg4d"
        );
    }

    #[test]
    fn module_accounts_are_where_the_sdk_has_them() {
        // The fee collector of every chain with this prefix.
        assert_eq!(
            module_address("fee_collector").unwrap().as_str(),
            "wasm17xpfvakm2amg962yls6f84z3kell8c5l69j4zk"
        );
    }
}
