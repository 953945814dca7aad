// swift-tools-version:5.5
// An example: the app may as well copy TradingWebSocketManager.swift and add the dependency in Xcode.

import PackageDescription

let package = Package(
    name: "TradingWebSocket",
    platforms: [.iOS(.v13), .macOS(.v10_15)],
    products: [
        .library(name: "TradingWebSocket", targets: ["TradingWebSocket"]),
    ],
    dependencies: [
        .package(url: "https://github.com/socketio/socket.io-client-swift", .upToNextMinor(from: "16.1.1")),
    ],
    targets: [
        .target(
            name: "TradingWebSocket",
            dependencies: [.product(name: "SocketIO", package: "socket.io-client-swift")],
            path: ".",
            sources: ["TradingWebSocketManager.swift"]
        ),
    ]
)
