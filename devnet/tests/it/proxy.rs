//! A TCP proxy that can cut every connection and refuse new ones: a node that goes away and comes back.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{watch, Notify},
};

/// Up while the value is true.
pub(crate) struct Proxy {
    pub(crate) url: String,
    up: watch::Sender<bool>,
    refused: Arc<Notify>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (up, state) = watch::channel(true);
        let refused = Arc::new(Notify::new());
        let notify = refused.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *state.borrow() {
                    tokio::spawn(carry(client, target, state.clone()));
                } else {
                    notify.notify_one();
                }
            }
        });
        Proxy { url, up, refused }
    }

    /// Waits until somebody knocked in vain.
    pub(crate) async fn refused(&self) {
        self.refused.notified().await;
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
    let mut node = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut node) => {}
        _ = up.wait_for(|up| !up) => {}
    }
}
