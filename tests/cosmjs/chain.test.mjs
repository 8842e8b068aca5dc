// CosmJS, as a wallet or a web page uses it: the same against the chain of the network file that FXN_NETWORK names (one with the development
// accounts, as of scripts/localnet.sh) and, without one, against an `fxn devnet` of its own. FXN_BIN names the program.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Secp256k1Wallet } from "@cosmjs/amino";
import { CosmWasmClient, SigningCosmWasmClient } from "@cosmjs/cosmwasm";
import { DirectSecp256k1Wallet } from "@cosmjs/proto-signing";
import { GasPrice } from "@cosmjs/stargate";
import { TxRaw } from "cosmjs-types/cosmos/tx/v1beta1/tx";

const options = { gasPrice: GasPrice.fromString("0.025ustake"), broadcastPollIntervalMs: 100 };
const funds = { coins: "1000000000", func: "1000000000" };
const names = ["developer", "creator", "gateway", "provider-1", "provider-2", "provider-3", "provider-4", "provider-5", "provider-6"];
let folder, node, network, client, chainId, faucet;

// Everybody knows the key of the faucet. All others are new, so that a chain may be used again and again.
const faucetKey = createHash("sha256").update("function network development account").update("faucet").digest();
const keys = new Map();
const secret = (name) => keys.get(name) ?? keys.set(name, randomBytes(32)).get(name);

async function signer(name, kind = DirectSecp256k1Wallet) {
  return connected(await kind.fromKey(secret(name), "wasm"));
}

async function connected(wallet) {
  const [{ address }] = await wallet.getAccounts();
  return { address, client: await SigningCosmWasmClient.connectWithSigner(network.rpc, wallet, options) };
}

const transfer = (recipient, amount) => ({ transfer: { recipient, amount: String(amount) } });
const func = async (address) =>
  BigInt((await client.queryContractSmart(network.contracts.func_token, { balance: { address } })).balance);

// Starts the embedded chain and returns where its network file is.
async function devnet() {
  folder = mkdtempSync(join(tmpdir(), "fxn-cosmjs-"));
  const bin = process.env.FXN_BIN;
  assert.ok(bin, "FXN_BIN names the fxn program");
  const args = ["devnet", "--rpc", "127.0.0.1:0", "--block-time", "100ms", "--home", folder, "--output", "json"];
  node = spawn(bin, args, { stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise((resolve, reject) => {
    let text = "";
    node.stdout.on("data", (piece) => {
      text += piece;
      if (text.includes("\n")) resolve(text);
    });
    node.on("exit", (code) => reject(new Error(`fxn devnet ended with ${code}: ${text}`)));
    node.on("error", reject);
    setTimeout(() => reject(new Error("fxn devnet does not start")), 60_000).unref();
  });
  return JSON.parse(line).network;
}

before(async () => {
  network = JSON.parse(readFileSync(process.env.FXN_NETWORK ?? (await devnet()), "utf8"));
  chainId = network.chain_id;
  client = await CosmWasmClient.connect(network.rpc);
  faucet = await connected(await DirectSecp256k1Wallet.fromKey(faucetKey, "wasm"));
  const calls = [];
  for (const name of names) {
    const { address } = await signer(name);
    calls.push({ contractAddress: network.contracts.func_token, msg: transfer(address, funds.func), funds: [] });
    await faucet.client.sendTokens(faucet.address, address, [{ denom: "ustake", amount: funds.coins }], "auto");
  }
  await faucet.client.executeMultiple(faucet.address, calls, "auto");
});

after(() => {
  node?.kill("SIGKILL");
  client?.disconnect();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

test("the chain, its height and its blocks are read", async () => {
  assert.equal(await client.getChainId(), chainId);
  const height = await client.getHeight();
  assert.ok(height >= 1);
  const block = await client.getBlock(height);
  assert.equal(block.header.height, height);
  assert.equal(block.header.chainId, chainId);
  assert.equal((await client.getBlock(1)).header.height, 1);
});

test("accounts and balances are read", async () => {
  const { address } = await signer("gateway");
  const account = await client.getAccount(address);
  assert.equal(account.sequence, 0);
  assert.ok(account.accountNumber > 0);
  assert.deepEqual(await client.getBalance(address, "ustake"), { denom: "ustake", amount: funds.coins });
  assert.equal((await client.getBalance(address, "unothing")).amount, "0");
  assert.equal(await client.getAccount((await signer("nobody at all")).address), null);
});

test("contracts, codes and state are read", async () => {
  const { func_token: token } = network.contracts;
  const codes = await client.getCodes();
  for (const [name, address] of Object.entries(network.contracts)) {
    const { codeId, creator, label } = await client.getContract(address);
    assert.equal(label, name.replaceAll("_", "-"));
    const { checksum } = codes.find(({ id }) => id === codeId);
    assert.equal((await client.getCodeDetails(codeId)).checksum, checksum);
    assert.ok((await client.getContracts(codeId)).includes(address));
    assert.ok((await client.getContractsByCreator(creator)).includes(address));
    const answer = await client.queryContractSmart(address, name === "func_token" ? { token_info: {} } : { config: {} });
    assert.equal(typeof answer, "object");
  }
  assert.deepEqual(await client.getContracts(9999), []);
  const info = await client.queryContractSmart(token, { token_info: {} });
  assert.equal(info.symbol, "FUNC");
  const raw = await client.queryContractRaw(token, new TextEncoder().encode("contract_info"));
  assert.equal(JSON.parse(new TextDecoder().decode(raw)).contract, "func-token");
  assert.equal((await client.queryContractRaw(token, new Uint8Array([1])))?.length ?? 0, 0);
  await assert.rejects(client.queryContractSmart(token, { dance: {} }), /unknown variant `dance`/);
  await assert.rejects(client.getContract(faucet.address), /no such contract/);
});

test("a contract is called with a simulated and with a fixed fee, once and several times", async () => {
  const [alice, bob] = [await signer("developer"), await signer("creator")];
  const { func_token: token } = network.contracts;
  const before = await func(bob.address);
  const auto = await alice.client.execute(alice.address, token, transfer(bob.address, 5), "auto");
  assert.ok(auto.gasUsed > 100_000n && auto.gasUsed <= auto.gasWanted);
  assert.ok(auto.events.some((event) => event.type === "wasm"));
  const fee = { amount: [{ denom: "ustake", amount: "7500" }], gas: "300000" };
  await alice.client.execute(alice.address, token, transfer(bob.address, 6), fee, "a memo");
  const calls = [7, 8].map((amount) => ({ contractAddress: token, msg: transfer(bob.address, amount) }));
  const both = await alice.client.executeMultiple(alice.address, calls, "auto");
  const indices = both.events.flatMap((event) => event.attributes).filter(({ key }) => key === "msg_index");
  assert.deepEqual([...new Set(indices.map(({ value }) => value))], ["0", "1"]);
  assert.equal((await func(bob.address)) - before, 26n);
  assert.equal((await client.getAccount(alice.address)).sequence, 3);
});

test("coins are sent and a transaction is found by its hash and by its events", async () => {
  const [alice, bob] = [await signer("provider-1"), await signer("provider-2")];
  const sent = await alice.client.sendTokens(alice.address, bob.address, [{ denom: "ustake", amount: "9" }], "auto");
  assert.equal(sent.code, 0);
  const tx = await client.getTx(sent.transactionHash);
  assert.equal(tx.height, sent.height);
  assert.equal(tx.hash, sent.transactionHash);
  assert.equal(tx.msgResponses[0].typeUrl, "/cosmos.bank.v1beta1.MsgSendResponse");
  const found = await client.searchTx([
    { key: "transfer.sender", value: alice.address },
    { key: "tx.height", value: sent.height },
  ]);
  assert.deepEqual(found.map(({ hash }) => hash), [sent.transactionHash]);
  assert.equal(await client.getTx("AB".repeat(32)), null);
});

test("FUNC is deposited by a transfer with a message, found by its events, and withdrawn", async () => {
  const payer = await signer("gateway");
  const { func_token: token, royalty_escrow: escrow } = network.contracts;
  const msg = Buffer.from(JSON.stringify({ deposit: { beneficiary: null } })).toString("base64");
  const deposit = { send: { contract: escrow, amount: "70", msg } };
  const sent = await payer.client.execute(payer.address, token, deposit, "auto");
  const credited = sent.events.find(({ type }) => type === "wasm-credited").attributes;
  const told = Object.fromEntries(credited.map(({ key, value }) => [key, value]));
  assert.deepEqual([told.holder, told.reason, told.amount], [payer.address, "deposit", "70"]);
  const money = async () => (await client.queryContractSmart(escrow, { money: { holder: payer.address } })).available;
  assert.equal(await money(), "70");
  const found = await client.searchTx([{ key: "wasm-credited.holder", value: payer.address }]);
  assert.deepEqual(found.map(({ hash }) => hash), [sent.transactionHash]);
  const before = await func(payer.address);
  await payer.client.execute(payer.address, escrow, { withdraw: { amount: "30" } }, "auto");
  assert.equal((await func(payer.address)) - before, 30n);
  assert.equal(await money(), "40");
});

test("a contract is made of a code", async () => {
  const maker = await signer("provider-3");
  // All FUNC that may ever be, or the token refuses to begin.
  const initial_balances = [{ address: maker.address, amount: "1000000000000000" }];
  const message = { initial_balances, marketing: null };
  const { codeId } = await client.getContract(network.contracts.func_token);
  const made = await maker.client.instantiate(maker.address, codeId, message, "a second token", "auto");
  assert.ok((await client.getContracts(codeId)).includes(made.contractAddress));
  assert.equal((await client.getContract(made.contractAddress)).creator, maker.address);
  const few = { initial_balances: [{ address: maker.address, amount: "1" }], marketing: null };
  await assert.rejects(maker.client.instantiate(maker.address, codeId, few, "a third", "auto"), /instantiate wasm contract failed/);
});

test("a contract's refusal, a used sequence and a foreign code are told in the chain's words", async () => {
  const poor = await signer("provider-4");
  const { func_token: token } = network.contracts;
  const much = transfer((await signer("creator")).address, "99999999999999999999");
  await assert.rejects(poor.client.execute(poor.address, token, much, "auto"), /execute wasm contract failed/);
  const fee = { amount: [{ denom: "ustake", amount: "7500" }], gas: "300000" };
  await assert.rejects(
    poor.client.execute(poor.address, token, much, fee),
    /Error when broadcasting tx .* Code: 5; Raw log: failed to execute message; message index: 0: .*: execute wasm contract failed/,
  );
  assert.equal((await client.getAccount(poor.address)).sequence, 1);
  const message = {
    typeUrl: "/cosmos.bank.v1beta1.MsgSend",
    value: { fromAddress: poor.address, toAddress: poor.address, amount: [{ denom: "ustake", amount: "1" }] },
  };
  const stale = { accountNumber: (await client.getAccount(poor.address)).accountNumber, sequence: 0, chainId };
  const signed = await poor.client.sign(poor.address, [message], fee, "", stale);
  await assert.rejects(client.broadcastTx(TxRaw.encode(signed).finish()), /Code: 32|code 32|account sequence mismatch/);
  // Four bytes are no module anywhere; contracts are compiled into the embedded chain, and it says so.
  const refusal = node ? /compiled into this chain/ : /create wasm contract failed/;
  await assert.rejects(poor.client.upload(poor.address, new Uint8Array([0, 97, 115, 109]), fee), refusal);
});

test("a wallet that signs amino JSON is taken, and its changed document is not", async () => {
  const ledger = await signer("provider-5", Secp256k1Wallet);
  const bob = await signer("provider-6");
  const { func_token: token } = network.contracts;
  const before = await func(bob.address);
  await ledger.client.execute(ledger.address, token, transfer(bob.address, 3), "auto", "a memo with <&>");
  const sent = await ledger.client.sendTokens(ledger.address, bob.address, [{ denom: "ustake", amount: "4" }], "auto");
  assert.equal(sent.code, 0);
  assert.equal((await func(bob.address)) - before, 3n);
  const message = {
    typeUrl: "/cosmos.bank.v1beta1.MsgSend",
    value: { fromAddress: ledger.address, toAddress: bob.address, amount: [{ denom: "ustake", amount: "1" }] },
  };
  const account = await client.getAccount(ledger.address);
  const wrong = { accountNumber: account.accountNumber, sequence: account.sequence, chainId: "another-chain" };
  const fee = { amount: [{ denom: "ustake", amount: "7500" }], gas: "300000" };
  const signed = await ledger.client.sign(ledger.address, [message], fee, "", wrong);
  await assert.rejects(client.broadcastTx(TxRaw.encode(signed).finish()), /signature verification failed/);
});
