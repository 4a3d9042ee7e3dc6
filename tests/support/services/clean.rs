//! Takes away what a test declared in the shared RabbitMQ.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};

/// Deletes these queues and exchanges, from wherever it is called; also while a test panics.
pub fn delete_declared(url: &str, (queues, exchanges): (Vec<String>, Vec<String>)) {
    let url = url.to_owned();
    let cleaning = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let connected = Connection::connect(&url, ConnectionProperties::default()).await;
            // A server that is gone has nothing to clean.
            let Ok(connection) = connected else { return };
            let channel = connection.create_channel().await.unwrap();
            for queue in queues {
                let options = QueueDeleteOptions::default();
                let _ = channel.queue_delete(queue.as_str().into(), options).await;
            }
            for exchange in exchanges {
                let options = ExchangeDeleteOptions::default();
                let _ = channel
                    .exchange_delete(exchange.as_str().into(), options)
                    .await;
            }
            let _ = connection.close(200, "done".into()).await;
        });
    });
    let _ = cleaning.join();
}
