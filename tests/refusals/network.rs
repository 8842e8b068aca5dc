//! Network files and nodes that are not what they should be.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    market::Market,
    programs::PATIENCE,
    table::{check, refused},
};

/// Something that listens and answers every request with the same bytes; with none, it says nothing and holds the line.
pub(crate) fn stranger(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, answer.as_ref()));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<String>) {
    loop {
        let mut request = vec![];
        let mut buffer = [0; 4096];
        // Our requests are short; a body comes with the head or right after it.
        while !is_whole(&request) {
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => request.extend(&buffer[..read]),
                _ => return,
            }
        }
        let Some(text) = answer(&String::from_utf8_lossy(&request)) else {
            thread::sleep(PATIENCE);
            return;
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(text.as_bytes()))
            .is_err()
        {
            return;
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

#[test]
fn a_network_file_that_is_wrong_is_refused_before_any_money_moves() {
    let market = Market::open();
    let before = market.money();
    let swapped = |name: &str, one: &str, other: &str| {
        market.network(name, |network| {
            network["contracts"][one] = network["contracts"][other].clone()
        })
    };
    let whole = fs::read(market.path().join("network.json")).unwrap();
    let nowhere = crate::market::stranger();
    let files = [
        (
            market.network("chain.json", |n| n["chain_id"] = "other-1".into()),
            vec!["\"fxn-devnet-1\"", "\"other-1\"", "--node"],
        ),
        (
            swapped("kind.json", "model_registry", "royalty_escrow"),
            vec!["is royalty-escrow", "says that it is model-registry"],
        ),
        (
            swapped("token.json", "royalty_escrow", "func_token"),
            vec!["is func-token", "says that it is royalty-escrow"],
        ),
        (
            market.network("account.json", |n| {
                n["contracts"]["royalty_escrow"] = nowhere.clone().into()
            }),
            vec!["no contract at", nowhere.as_str()],
        ),
        (
            market.network("address.json", |n| n["contracts"]["royalty_escrow"] = "wasm1xx".into()),
            vec!["\"wasm1xx\""],
        ),
        (
            market.network("prefix.json", |n| n["bech32_prefix"] = "cosmos".into()),
            vec!["cosmos"],
        ),
        (
            market.network("unknown.json", |n| n["chain_ID"] = 1.into()),
            vec!["unknown field `chain_ID`", "get it anew"],
        ),
        (
            market.network("type.json", |n| n["rpc"] = 5.into()),
            vec!["no network file", "get it anew"],
        ),
        (
            market.network("gas.json", |n| n["gas_price"] = "-1".into()),
            vec!["no network file"],
        ),
        (
            market.network("short.json", |n| drop(n.as_object_mut().unwrap().remove("denom"))),
            vec!["missing field `denom`"],
        ),
        (
            market.file("half.json", &whole[..whole.len() / 2]),
            vec!["no network file", "EOF"],
        ),
        (market.file("empty.json", b""), vec!["no network file"]),
        (
            market.file("html.json", b"<html>\n<body>404</body>"),
            vec!["no network file"],
        ),
        (market.file("bytes.json", b"\xff\xfe\x00"), vec!["no network file"]),
        (market.file("long.json", &[b' '; 70_000]), vec!["70000 bytes"]),
        (market.path().display().to_string(), vec!["directory"]),
        (
            "/nonexistent/network.json".to_owned(),
            vec!["no network is known", "fxn devnet"],
        ),
    ];
    let mut mistakes = vec![];
    for (file, says) in files {
        for command in [&["wallet", "deposit", "1"][..], &["model", "list"]] {
            mistakes.push(refused(market.fxn(&[command, &["--network", &file]].concat()), &says));
        }
    }
    check(mistakes);
    assert_eq!(market.money(), before);
}

#[test]
fn a_node_that_is_none_is_told_within_bounds() {
    let market = Market::open();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let html = stranger(|_| Some("<html><body>It works!</body></html>".to_owned()));
    let json = stranger(|_| Some(r#"{"jsonrpc":"2.0","id":1,"result":{"foo":1}}"#.to_owned()));
    let silent = stranger(|_| None);
    let secure = market.rpc.replace("http://", "https://");
    let down = format!("http://{free}");
    let since = Instant::now();
    let doctor = "`fxn doctor`";
    let mistakes = [
        (down.as_str(), vec![down.as_str(), "cannot be reached", doctor]),
        (&html, vec![doctor]),
        (&json, vec![doctor]),
        (&silent, vec![silent.as_str(), "cannot be reached", doctor]),
        (&secure, vec![secure.as_str(), "cannot be reached"]),
        ("nonsense", vec!["nonsense", "cannot be reached"]),
        ("ftp://127.0.0.1", vec!["ftp"]),
        ("", vec!["cannot be reached"]),
    ];
    check(
        mistakes
            .into_iter()
            .map(|(node, says)| refused(market.fxn(&["model", "list", "--node", node]), &says))
            .collect(),
    );
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}
