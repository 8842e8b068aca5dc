//! A TCP proxy that can cut every connection and refuse new ones: a node that goes away and comes back.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Up while the value is true.
pub(crate) struct Proxy {
    pub(crate) url: String,
    up: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (up, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, state.clone()));
            }
        });
        Proxy { url, up }
    }

    /// Cuts what is open and refuses what comes.
    pub(crate) fn go_down(&self) {
        self.up.send_replace(false);
    }

    pub(crate) fn come_up(&self) {
        self.up.send_replace(true);
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut up: watch::Receiver<bool>) {
    if !*up.borrow_and_update() {
        return;
    }
    let mut node = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut node) => {}
        _ = up.wait_for(|up| !up) => {}
    }
}
