//! The state machine: cw-multi-test's `App` over our own [`Store`]. The one file that knows cw-multi-test.
//!
//! Guarantees:
//! - A message that fails or panics leaves no writes.
//! - A panicking contract or an unsupported query is an error, not a crash.
//! - Contract addresses are the ones wasmd would give, so a deployment has the same addresses on both chains.

use std::panic::{catch_unwind, AssertUnwindSafe};

use cosmwasm_std::{
    Addr, Api, BankMsg, BankQuery, BlockInfo, CanonicalAddr, Coin, CosmosMsg, Empty, Event, Querier, QueryRequest,
    StdResult, Storage, WasmMsg, WasmQuery,
};
use cw_multi_test::{
    error::AnyResult, no_init, AddressGenerator, App, AppBuilder, AppResponse, BankKeeper, Contract,
    DistributionKeeper, Executor, FailingModule, GovFailingModule, IbcFailingModule, MockApiBech32,
    SimpleAddressGenerator, StakeKeeper, StargateFailing, WasmKeeper,
};

use crate::{
    code::{self, Refusal},
    store::{Store, Written},
    transaction::Message,
    PREFIX,
};

/// Makes a contract's code: `|| Box::new(ContractWrapper::new(execute, instantiate, query))`.
pub type Code = fn() -> Box<dyn Contract<Empty>>;

type Inner = App<
    BankKeeper,
    MockApiBech32,
    Store,
    FailingModule<Empty, Empty, Empty>,
    WasmKeeper<Empty, Empty>,
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

/// Bank, contracts and their state.
pub(crate) struct Machine {
    app: Inner,
}

impl Machine {
    /// A machine with these codes, numbered from 1, and balances.
    pub(crate) fn new(codes: &[Code], balances: &[(String, Coin)], block: BlockInfo) -> AnyResult<Machine> {
        let wasm = WasmKeeper::new().with_address_generator(WasmdAddresses);
        let mut app: Inner = AppBuilder::new()
            .with_api(MockApiBech32::new(PREFIX))
            .with_storage(Store::default())
            .with_wasm(wasm)
            .with_block(block)
            .build(no_init);
        let creator = module_address("gov")?;
        for code in codes {
            app.store_code_with_creator(creator.clone(), code());
        }
        app.init_modules(|router, _, storage| {
            balances.iter().try_for_each(|(address, coin)| {
                router
                    .bank
                    .init_balance(storage, &Addr::unchecked(address), vec![coin.clone()])
            })
        })?;
        Ok(Machine { app })
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
        let (message, failed) = self.checked(sender, message)?;
        let app = &mut self.app;
        let sender = Addr::unchecked(sender);
        match catch_unwind(AssertUnwindSafe(|| app.execute(sender, message))) {
            Ok(Ok(AppResponse { events, data, .. })) => Ok(Effect {
                events,
                data: data.unwrap_or_default().to_vec(),
            }),
            Ok(Err(error)) => {
                // One such context a level: the outermost is the transaction's own message.
                let contexts = error
                    .chain()
                    .filter(|cause| cause.to_string().starts_with("Error executing WasmMsg"));
                let wrapping = "dispatch: submessages: ".repeat(contexts.count().saturating_sub(1));
                Err(failed.with(format!("{wrapping}{}", error.root_cause())))
            }
            Err(panic) => Err(failed.with(aborted(panic.as_ref()))),
        }
    }

    /// The message as cw-multi-test takes it, after the checks that wasmd and the bank make and it does not.
    fn checked(&self, sender: &str, message: &Message) -> Result<(CosmosMsg, code::Code), Refusal> {
        match message.clone() {
            Message::Send { to, amount } => {
                if !self.is_address(&to) {
                    return Err(code::INVALID_ADDRESS.with(format!("invalid to address: {to:?}")));
                }
                self.check_balance(sender, &amount)?;
                let send = BankMsg::Send { to_address: to, amount };
                Ok((send.into(), code::INSUFFICIENT_FUNDS))
            }
            Message::Execute { contract, msg, funds } => {
                self.instance(&contract)?;
                self.check_balance(sender, &funds)?;
                let execute = WasmMsg::Execute {
                    contract_addr: contract,
                    msg: msg.into(),
                    funds,
                };
                Ok((execute.into(), code::EXECUTE_FAILED))
            }
            Message::Instantiate {
                code_id,
                msg,
                label,
                admin,
                funds,
            } => {
                self.check_balance(sender, &funds)?;
                let instantiate = WasmMsg::Instantiate {
                    admin,
                    code_id,
                    msg: msg.into(),
                    funds,
                    label,
                };
                Ok((instantiate.into(), code::INSTANTIATE_FAILED))
            }
        }
    }

    fn check_balance(&self, owner: &str, amount: &[Coin]) -> Result<(), Refusal> {
        for Coin { denom, amount } in amount {
            let balance = self.balance(owner, denom);
            if balance < amount.u128() {
                let log = format!("spendable balance {balance}{denom} is smaller than {amount}{denom}");
                return Err(code::INSUFFICIENT_FUNDS.with(log));
            }
        }
        Ok(())
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

    /// Asks a contract. Its refusal carries its own sentence.
    pub(crate) fn smart(&self, address: &str, query: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.instance(address)?;
        let failed = |sentence: String| Refusal {
            codespace: "wasm",
            code: 9,
            log: format!("{sentence}: query wasm contract failed"),
        };
        let request: QueryRequest<Empty> = QueryRequest::Wasm(WasmQuery::Smart {
            contract_addr: address.to_owned(),
            msg: query.to_vec().into(),
        });
        let asked = catch_unwind(AssertUnwindSafe(|| -> StdResult<_> {
            let request = cosmwasm_std::to_json_vec(&request)?;
            Ok(self.app.raw_query(&request))
        }));
        let answer = match asked {
            Ok(answer) => answer.map_err(|error| failed(error.to_string()))?,
            Err(panic) => return Err(failed(aborted(panic.as_ref()))),
        };
        let answer = answer.into_result().map_err(|error| failed(error.to_string()))?;
        answer.into_result().map(|data| data.to_vec()).map_err(failed)
    }
}

/// The account of a module: its name's digest, as the SDK derives it.
pub(crate) fn module_address(name: &str) -> StdResult<Addr> {
    let digest = crate::transaction::hash_of(name.as_bytes());
    let canonical = CanonicalAddr::from(digest.get(..20).unwrap_or_default());
    MockApiBech32::new(PREFIX).addr_humanize(&canonical)
}

/// The words of a real chain for a contract that panicked.
fn aborted(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "no message".to_owned());
    format!(
        "Error calling the VM: Error executing Wasm: Wasmer runtime error: RuntimeError: Aborted: panicked at '{text}'"
    )
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
