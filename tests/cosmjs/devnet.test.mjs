// CosmJS, as a wallet or a web page uses it, against a real `fxn devnet` process: FXN_BIN names the program.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
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
const chainId = "fxn-devnet-1";
let folder, node, network, client;

// Everybody knows the keys of development accounts.
const secret = (name) => createHash("sha256").update("function network development account").update(name).digest();

async function signer(name, kind = DirectSecp256k1Wallet) {
  const wallet = await kind.fromKey(secret(name), "wasm");
  const [{ address }] = await wallet.getAccounts();
  return { address, client: await SigningCosmWasmClient.connectWithSigner(network.rpc, wallet, options) };
}

const transfer = (recipient, amount) => ({ transfer: { recipient, amount: String(amount) } });
const func = async (address) =>
  BigInt((await client.queryContractSmart(network.contracts.func_token, { balance: { address } })).balance);

before(async () => {
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
  network = JSON.parse(readFileSync(JSON.parse(line).network, "utf8"));
  client = await CosmWasmClient.connect(network.rpc);
});

after(() => {
  node?.kill("SIGKILL");
  client?.disconnect();
  rmSync(folder, { recursive: true, force: true });
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
  assert.deepEqual(await client.getBalance(address, "ustake"), { denom: "ustake", amount: "1000000000000" });
  assert.equal((await client.getBalance(address, "unothing")).amount, "0");
  assert.equal(await client.getAccount((await signer("nobody at all")).address), null);
});

test("contracts, codes and state are read", async () => {
  const { func_token: token } = network.contracts;
  const codes = await client.getCodes();
  assert.deepEqual(codes.map((code) => code.id), [1, 2, 3, 4, 5]);
  const details = await client.getCodeDetails(1);
  assert.equal(details.checksum, codes[0].checksum);
  assert.equal((await client.getContracts(1))[0], token);
  assert.deepEqual(await client.getContracts(99), []);
  const contract = await client.getContract(token);
  assert.equal(contract.codeId, 1);
  assert.equal(contract.label, "func-token");
  const { address: admin } = await signer("admin");
  assert.deepEqual((await client.getContractsByCreator(admin)).length, 5);
  const info = await client.queryContractSmart(token, { token_info: {} });
  assert.equal(info.symbol, "FUNC");
  const raw = await client.queryContractRaw(token, new TextEncoder().encode("contract_info"));
  assert.equal(JSON.parse(new TextDecoder().decode(raw)).contract, "func-token");
  assert.equal((await client.queryContractRaw(token, new Uint8Array([1])))?.length ?? 0, 0);
  await assert.rejects(client.queryContractSmart(token, { dance: {} }), /unknown variant `dance`/);
  await assert.rejects(client.getContract(admin), /no such contract/);
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

test("a contract is made of a code", async () => {
  const maker = await signer("provider-3");
  // All FUNC that may ever be, or the token refuses to begin.
  const initial_balances = [{ address: maker.address, amount: "1000000000000000" }];
  const message = { initial_balances, marketing: null };
  const made = await maker.client.instantiate(maker.address, 1, message, "a second token", "auto");
  assert.deepEqual((await client.getContracts(1)).includes(made.contractAddress), true);
  assert.equal((await client.getContract(made.contractAddress)).creator, maker.address);
  const few = { initial_balances: [{ address: maker.address, amount: "1" }], marketing: null };
  await assert.rejects(maker.client.instantiate(maker.address, 1, few, "a third", "auto"), /instantiate wasm contract failed/);
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
  await assert.rejects(poor.client.upload(poor.address, new Uint8Array([0, 97, 115, 109]), fee), /compiled into this chain/);
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
