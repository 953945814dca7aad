//
//  TradingWebSocketManager.swift
//
//  The account push of an exchange app in one file: balance, positions, pnl and orders, live.
//  Needs socket.io-client-swift 16 (https://github.com/socketio/socket.io-client-swift), iOS 13 / macOS 10.15, Swift 5.5.
//
//      let trading = TradingWebSocketManager(serverURL: url, jwtToken: token)
//      trading.onBalance = { update in print(update.data.totalBalance) }
//      trading.onTokenExpiring = { [weak trading] _ in refreshToken { trading?.updateToken($0) } }
//      trading.connect()
//
//  How it behaves, and why:
//  - Every update is the whole state of its type. There is nothing to merge and nothing to replay.
//  - This class reconnects by itself and leaves the library's own reconnecting off: the library replays the token it
//    was first given for ever, does not try again after the server refused or ended a connection, and waits 15 s
//    before its second try. Each try here is a new connection with the newest token.
//  - A token that is expired, invalid or revoked is not tried again. The app is asked for a new one.
//

import Foundation
import SocketIO

// MARK: - What the server sends

/// What can be subscribed to.
public enum TradingDataType: String, Codable, CaseIterable {
    case balance = "balance"
    case positions = "positions"
    case pnl = "pnl"
    case orders = "orders"
}

/// One state of one type. `seq` grows with every state of that type; `asOf` is the exchange's own time in ms.
public struct TradingUpdate<Payload: Decodable>: Decodable {
    public let type: String
    public let data: Payload
    /// UTC, whole seconds, without a suffix: `2025-11-10T09:00:00`.
    public let timestamp: String
    public let userId: Int64
    public let seq: Int64
    public let asOf: Int64

    enum CodingKeys: String, CodingKey {
        case type = "type"
        case data = "data"
        case timestamp = "timestamp"
        case userId = "user_id"
        case seq = "seq"
        case asOf = "as_of"
    }
}

public struct TradingBalance: Codable, Equatable {
    public let totalBalance: Double
    public let availableBalance: Double
    public let usedMargin: Double

    enum CodingKeys: String, CodingKey {
        case totalBalance = "total_balance"
        case availableBalance = "available_balance"
        case usedMargin = "used_margin"
    }
}

/// In hedge mode one symbol has two rows, told apart by `side` (`Buy`, `Sell`).
public struct TradingPosition: Codable, Equatable {
    public let symbol: String
    public let side: String
    public let size: Double
    public let entryPrice: Double
    public let markPrice: Double
    public let unrealizedPnl: Double

    enum CodingKeys: String, CodingKey {
        case symbol = "symbol"
        case side = "side"
        case size = "size"
        case entryPrice = "entry_price"
        case markPrice = "mark_price"
        case unrealizedPnl = "unrealized_pnl"
    }
}

public struct TradingPnl: Codable, Equatable {
    public let totalPnl: Double
    public let todayPnl: Double
    public let unrealizedPnl: Double
    public let realizedPnl: Double

    enum CodingKeys: String, CodingKey {
        case totalPnl = "total_pnl"
        case todayPnl = "today_pnl"
        case unrealizedPnl = "unrealized_pnl"
        case realizedPnl = "realized_pnl"
    }
}

/// `price` is nil for a market order without a trigger.
public struct TradingOrder: Codable, Equatable {
    public let orderId: String
    public let symbol: String
    public let side: String
    public let quantity: Double
    public let price: Double?
    public let status: String

    enum CodingKeys: String, CodingKey {
        case orderId = "order_id"
        case symbol = "symbol"
        case side = "side"
        case quantity = "quantity"
        case price = "price"
        case status = "status"
    }
}

public enum TradingFreshness: String, Codable {
    case live = "live"
    case delayed = "delayed"
    case stopped = "stopped"
}

/// How current a type is. While `stopped`, the last figures stay valid as "last known".
public struct TradingStatus: Codable, Equatable {
    public let type: TradingDataType
    public let state: TradingFreshness
    /// A stable code, such as `key_expired`.
    public let reason: String
    /// For the person.
    public let message: String
    /// ISO 8601, or nil when the end is not known.
    public let until: String?

    enum CodingKeys: String, CodingKey {
        case type = "type"
        case state = "state"
        case reason = "reason"
        case message = "message"
        case until = "until"
    }
}

public enum TradingHealthState: String, Codable {
    case ok = "ok"
    case warning = "warning"
    case critical = "critical"
}

/// Something about the user's exchange key that the user should know.
public struct TradingKeyProblem: Codable, Equatable {
    /// A stable code: `key_expires_soon`, `key_can_trade`, `key_can_withdraw`, `key_not_ip_bound` (worth knowing, no
    /// more), or why the exchange refuses the key, such as `key_expired`.
    public let code: String
    /// For the person.
    public let message: String
    /// ISO 8601: when the key ends, where that is the problem.
    public let until: String?

    enum CodingKeys: String, CodingKey {
        case code = "code"
        case message = "message"
        case until = "until"
    }
}

/// What is wrong with the user's exchange key. Only sent when something is, and once more when it is over: forget the
/// last one at each new connection.
public struct TradingAccountHealth: Codable, Equatable {
    public let userId: Int64
    public let state: TradingHealthState
    public let problems: [TradingKeyProblem]
    /// ISO 8601, or nil for a key that never expires.
    public let expiresAt: String?
    public let daysLeft: Int?
    /// nil when the exchange does not say, because it refuses the key.
    public let readOnly: Bool?
    public let ipBound: Bool?
    /// ISO 8601, or nil when the key was deleted.
    public let checkedAt: String?

    enum CodingKeys: String, CodingKey {
        case userId = "user_id"
        case state = "state"
        case problems = "problems"
        case expiresAt = "expires_at"
        case daysLeft = "days_left"
        case readOnly = "read_only"
        case ipBound = "ip_bound"
        case checkedAt = "checked_at"
    }
}

/// The server's greeting, sent after every connect and after every accepted `updateToken`.
public struct TradingSession: Codable, Equatable {
    public let userId: Int64
    public let message: String
    /// Names as text: a newer server may know types that this file does not.
    public let types: [String]
    public let subscribed: [String]
    /// ISO 8601.
    public let tokenExpiresAt: String

    enum CodingKeys: String, CodingKey {
        case userId = "user_id"
        case message = "message"
        case types = "types"
        case subscribed = "subscribed"
        case tokenExpiresAt = "token_expires_at"
    }
}

/// The answer to a subscription: which types are on now, and how often each is refreshed, in seconds.
public struct TradingSubscription: Codable, Equatable {
    public let types: [String]
    public let subscribed: [String]
    public let intervals: [String: Double]

    enum CodingKeys: String, CodingKey {
        case types = "types"
        case subscribed = "subscribed"
        case intervals = "intervals"
    }
}

/// Something went wrong. Decide by `code`; show `message`.
public struct TradingError: Error, Codable, Equatable {
    public let code: String
    public let message: String
    public let retryable: Bool

    enum CodingKeys: String, CodingKey {
        case code = "code"
        case message = "message"
        case retryable = "retryable"
    }
}

public enum TradingConnectionState: Equatable {
    /// `connect()` was not called, or `disconnect()` was.
    case disconnected
    case connecting
    case connected
    /// The connection is lost; the next try starts in so many seconds.
    case waitingToReconnect(TimeInterval)
    /// The server does not accept this token (or this user); nothing is tried until `updateToken` brings another.
    case tokenRequired(code: String)
}

// MARK: - The names of the contract

private enum ServerEvent {
    static let connected = "connected"
    static let subscribed = "subscribed"
    static let unsubscribed = "unsubscribed"
    static let balance = "balance_update"
    static let positions = "positions_update"
    static let pnl = "pnl_update"
    static let orders = "orders_update"
    static let status = "status_update"
    static let accountHealth = "account_health"
    static let tokenExpiring = "token_expiring"
    /// The library reports its own troubles and refused connections under this name too.
    static let error = "error"
}

private enum ClientEvent {
    static let subscribe = "subscribe_trading"
    static let unsubscribe = "unsubscribe_trading"
    static let authenticate = "authenticate"
    static let resync = "resync"
}

/// Refusals that the same token will meet again and again.
private let tokenRefusals: Set<String> = [
    "token_missing", "token_invalid", "token_expired", "token_revoked", "user_disabled",
]

/// The answer to an `updateToken` with a token of another user; the connection goes on with the old one.
private let tokenOfAnotherUser = "token_mismatch"

/// Refusals that pass by themselves; the next try waits a little longer.
private let busyRefusals: Set<String> = ["too_many_connections", "server_busy"]

// MARK: - The manager

/// Everything inside happens on one serial queue, so the public methods may be called from any thread.
/// Callbacks arrive on `callbackQueue`, the main queue unless another is given.
/// Set the callbacks before `connect()`. Capture whatever owns this object weakly in them.
public final class TradingWebSocketManager: @unchecked Sendable {
    public var onBalance: ((TradingUpdate<TradingBalance>) -> Void)?
    public var onPositions: ((TradingUpdate<[TradingPosition]>) -> Void)?
    public var onPnl: ((TradingUpdate<TradingPnl>) -> Void)?
    public var onOrders: ((TradingUpdate<[TradingOrder]>) -> Void)?
    public var onStatus: ((TradingStatus) -> Void)?
    public var onAccountHealth: ((TradingAccountHealth) -> Void)?
    public var onError: ((TradingError) -> Void)?
    public var onConnectionChange: ((TradingConnectionState) -> Void)?
    /// The token ends in so many seconds: fetch a new one and hand it to `updateToken`.
    public var onTokenExpiring: ((TimeInterval) -> Void)?
    public var onSession: ((TradingSession) -> Void)?
    public var onSubscriptionChange: ((TradingSubscription) -> Void)?

    private static let connectTimeout: TimeInterval = 15
    private static let firstDelay: TimeInterval = 0.5
    private static let longestDelay: TimeInterval = 30
    /// A connection that lived so long counts as healthy: the next loss starts with short delays again.
    private static let healthyAfter: TimeInterval = 10

    private let serverURL: URL
    private let callbackQueue: DispatchQueue
    private let queue = DispatchQueue(label: "trading-websocket")

    // All of these are touched on `queue` only.
    private var token: String
    /// The token the living connection was accepted with; another one than `token` until the server confirmed that.
    private var connectionToken: String
    private var refusedToken: (token: String, code: String)?
    private var wantedTypes: Set<TradingDataType>
    private var newestSeq: [TradingDataType: Int64] = [:]
    private var mayRepeatSeq: Set<TradingDataType> = []
    private var userId: Int64?
    private var wantsConnection = false
    private var state = TradingConnectionState.disconnected
    private var failures = 0
    private var connectedSince: DispatchTime?
    /// Grows with every try and every stop, so that whatever an earlier connection still reports is not heard.
    private var generation = 0
    private var library: SocketManager?

    /// - Parameters:
    ///   - serverURL: the server's address without a path, such as `https://push.example.com`.
    ///   - jwtToken: the token from the login API.
    ///   - types: what to subscribe to after each connect; change it with `subscribe` and `unsubscribe`.
    ///   - callbackQueue: where the callbacks are called.
    public init(
        serverURL: URL,
        jwtToken: String,
        types: Set<TradingDataType> = Set(TradingDataType.allCases),
        callbackQueue: DispatchQueue = .main
    ) {
        self.serverURL = serverURL
        self.token = jwtToken
        self.connectionToken = jwtToken
        self.wantedTypes = types
        self.callbackQueue = callbackQueue
    }

    deinit {
        let library = self.library
        queue.async { library?.disconnect() }
    }

    /// Connects, and stays connected until `disconnect()`. While waiting for the next try, tries at once.
    public func connect() {
        queue.async { [weak self] in
            guard let self = self else { return }
            self.wantsConnection = true
            switch self.state {
            case .connecting, .connected:
                return
            case .disconnected, .waitingToReconnect, .tokenRequired:
                self.open()
            }
        }
    }

    /// Ends the connection and every further try. Call it when the app goes to the background.
    public func disconnect() {
        queue.async { [weak self] in
            guard let self = self else { return }
            self.wantsConnection = false
            self.failures = 0
            self.dropConnection()
            self.change(to: .disconnected)
        }
    }

    /// Adds types. The newest known state of each new one arrives at once.
    public func subscribe(_ types: [TradingDataType]) {
        queue.async { [weak self] in
            guard let self = self else { return }
            self.wantedTypes.formUnion(types)
            self.mayRepeatSeq.formUnion(types)
            self.sendTypes(ClientEvent.subscribe, Set(types))
        }
    }

    /// Takes types away; nothing of them arrives any more.
    public func unsubscribe(_ types: [TradingDataType]) {
        queue.async { [weak self] in
            guard let self = self else { return }
            self.wantedTypes.subtract(types)
            self.sendTypes(ClientEvent.unsubscribe, Set(types))
        }
    }

    /// Replaces the token, on the living connection (same user only) and for every later one.
    /// For another user make another manager.
    public func updateToken(_ jwtToken: String) {
        queue.async { [weak self] in
            guard let self = self else { return }
            self.token = jwtToken
            self.refusedToken = nil
            if case .connected = self.state {
                self.send(ClientEvent.authenticate, ["token": jwtToken])
            } else if case .tokenRequired = self.state, self.wantsConnection {
                self.failures = 0
                self.open()
            }
        }
    }

    /// Asks for every state that is newer than the last one received. Not needed in ordinary operation.
    public func resync() {
        queue.async { [weak self] in
            guard let self = self else { return }
            var since: [String: Int] = [:]
            for type in self.wantedTypes {
                since[type.rawValue] = Int(self.newestSeq[type] ?? 0)
            }
            self.send(ClientEvent.resync, ["since": since])
        }
    }

    // MARK: Connecting

    private func open() {
        dropConnection()
        if let refused = refusedToken, refused.token == token {
            change(to: .tokenRequired(code: refused.code))
            return
        }
        change(to: .connecting)
        connectionToken = token
        let current = generation
        // The token travels in the header and in the payload, never in the URL: addresses end up in logs.
        let library = SocketManager(socketURL: serverURL, config: [
            .forceWebsockets(true),
            .reconnects(false),
            .extraHeaders(["Authorization": "Bearer \(token)"]),
            .handleQueue(queue),
            .log(false),
        ])
        self.library = library
        let socket = library.defaultSocket
        listen(to: socket, generation: current)
        // Subscribed on the way in: the states come a round trip earlier than after `subscribe_trading`.
        socket.connect(withPayload: ["token": token, "subscribe": wantedTypes.map { $0.rawValue }])
        queue.asyncAfter(deadline: .now() + Self.connectTimeout) { [weak self] in
            guard let self = self, self.generation == current, self.state == .connecting else { return }
            self.lost()
        }
    }

    private func listen(to socket: SocketIOClient, generation current: Int) {
        func hear(_ event: String, _ handle: @escaping (TradingWebSocketManager, [Any]) -> Void) {
            socket.on(event) { [weak self] items, _ in
                guard let self = self, self.generation == current else { return }
                handle(self, items)
            }
        }
        socket.on(clientEvent: .connect) { [weak self] _, _ in
            guard let self = self, self.generation == current else { return }
            self.opened()
        }
        socket.on(clientEvent: .disconnect) { [weak self] _, _ in
            guard let self = self, self.generation == current else { return }
            self.lost()
        }
        hear(ServerEvent.error) { $0.failed($1) }
        hear(ServerEvent.connected) { $0.greeted($1) }
        hear(ServerEvent.subscribed) { $0.subscriptionChanged($1) }
        hear(ServerEvent.unsubscribed) { $0.subscriptionChanged($1) }
        hear(ServerEvent.tokenExpiring) { $0.tokenExpires($1) }
        hear(ServerEvent.status) { $0.statusChanged($1) }
        hear(ServerEvent.accountHealth) { $0.healthChanged($1) }
        hear(ServerEvent.balance) { manager, items in
            manager.updated(.balance, items) { (update: TradingUpdate<TradingBalance>) in manager.onBalance?(update) }
        }
        hear(ServerEvent.positions) { manager, items in
            manager.updated(.positions, items) { (update: TradingUpdate<[TradingPosition]>) in
                manager.onPositions?(update)
            }
        }
        hear(ServerEvent.pnl) { manager, items in
            manager.updated(.pnl, items) { (update: TradingUpdate<TradingPnl>) in manager.onPnl?(update) }
        }
        hear(ServerEvent.orders) { manager, items in
            manager.updated(.orders, items) { (update: TradingUpdate<[TradingOrder]>) in manager.onOrders?(update) }
        }
    }

    private func opened() {
        connectedSince = .now()
        change(to: .connected)
        if token != connectionToken {
            send(ClientEvent.authenticate, ["token": token])
        }
        // The server knows nothing of the connection before: subscribe again, and take the state it answers with
        // even if it is the one we have.
        mayRepeatSeq = wantedTypes
        sendTypes(ClientEvent.subscribe, wantedTypes)
    }

    /// The connection ended, or none came about: decide what happens next.
    private func lost() {
        if let since = connectedSince, DispatchTime.now() > since + Self.healthyAfter {
            failures = 0
        }
        dropConnection()
        guard wantsConnection else {
            change(to: .disconnected)
            return
        }
        if let refused = refusedToken, refused.token == token {
            change(to: .tokenRequired(code: refused.code))
            return
        }
        // Full jitter, so that a restarted server is not met by everybody in the same second.
        let ceiling = min(Self.longestDelay, Self.firstDelay * pow(2, Double(min(failures, 10))))
        let delay = TimeInterval.random(in: ceiling / 4...ceiling)
        failures += 1
        change(to: .waitingToReconnect(delay))
        let current = generation
        queue.asyncAfter(deadline: .now() + delay) { [weak self] in
            guard let self = self, self.generation == current, self.wantsConnection else { return }
            self.open()
        }
    }

    private func dropConnection() {
        generation += 1
        connectedSince = nil
        library?.defaultSocket.removeAllHandlers()
        library?.disconnect()
        library = nil
    }

    // MARK: Hearing

    /// Three things come under this name: the server's event `error` (an object with a code), a refused connection
    /// (an object whose `data` has the code) and the library's own troubles (a text; `disconnect` follows).
    private func failed(_ items: [Any]) {
        guard let body = items.first as? [String: Any] else {
            let text = items.map { String(describing: $0) }.joined(separator: " ")
            report(TradingError(code: "transport_error", message: text, retryable: true))
            return
        }
        if let code = body["code"] as? String {
            let message = body["message"] as? String ?? code
            if code == tokenOfAnotherUser {
                refusedToken = (token, code)
            } else if tokenRefusals.contains(code) {
                // If this ends the connection, the server closes it. A token that arrived meanwhile is still tried.
                refusedToken = (connectionToken, code)
            }
            report(TradingError(code: code, message: message, retryable: body["retryable"] as? Bool ?? false))
            return
        }
        let details = body["data"] as? [String: Any]
        let code = details?["code"] as? String ?? body["message"] as? String ?? "server_busy"
        let message = details?["message"] as? String ?? code
        if tokenRefusals.contains(code) {
            refusedToken = (connectionToken, code)
        } else if busyRefusals.contains(code) {
            failures = max(failures, 2)
        }
        report(TradingError(code: code, message: message, retryable: !tokenRefusals.contains(code)))
        lost()
    }

    private func greeted(_ items: [Any]) {
        guard let session: TradingSession = decoded(items) else { return }
        connectionToken = token
        refusedToken = nil
        if let previous = userId, previous != session.userId {
            newestSeq = [:]
        }
        userId = session.userId
        callbackQueue.async { [weak self] in self?.onSession?(session) }
    }

    private func subscriptionChanged(_ items: [Any]) {
        guard let subscription: TradingSubscription = decoded(items) else { return }
        callbackQueue.async { [weak self] in self?.onSubscriptionChange?(subscription) }
    }

    private func tokenExpires(_ items: [Any]) {
        let body = items.first as? [String: Any]
        let seconds = (body?["expires_in"] as? NSNumber)?.doubleValue ?? 60
        callbackQueue.async { [weak self] in self?.onTokenExpiring?(seconds) }
    }

    private func statusChanged(_ items: [Any]) {
        guard let status: TradingStatus = decoded(items) else { return }
        callbackQueue.async { [weak self] in self?.onStatus?(status) }
    }

    private func healthChanged(_ items: [Any]) {
        guard let health: TradingAccountHealth = decoded(items) else { return }
        callbackQueue.async { [weak self] in self?.onAccountHealth?(health) }
    }

    private func updated<Payload: Decodable>(
        _ type: TradingDataType,
        _ items: [Any],
        _ deliver: @escaping (TradingUpdate<Payload>) -> Void
    ) {
        guard wantedTypes.contains(type), let update: TradingUpdate<Payload> = decoded(items) else { return }
        let newest = newestSeq[type] ?? 0
        let isNew = update.seq > newest
        // A state that is sent again after a new subscription keeps its seq.
        let isRepeated = update.seq == newest && mayRepeatSeq.contains(type)
        guard isNew || isRepeated else { return }
        newestSeq[type] = update.seq
        mayRepeatSeq.remove(type)
        callbackQueue.async { deliver(update) }
    }

    private func decoded<Value: Decodable>(_ items: [Any]) -> Value? {
        guard let body = items.first, JSONSerialization.isValidJSONObject(body) else { return nil }
        do {
            let json = try JSONSerialization.data(withJSONObject: body)
            return try JSONDecoder().decode(Value.self, from: json)
        } catch {
            report(TradingError(code: "payload_unreadable", message: "\(error)", retryable: false))
            return nil
        }
    }

    // MARK: Telling

    private func sendTypes(_ event: String, _ types: Set<TradingDataType>) {
        if types.isEmpty { return }
        send(event, ["types": types.map { $0.rawValue }.sorted()])
    }

    /// Without a connection nothing is sent: `opened()` subscribes to everything wanted, and `open()` takes the token.
    private func send(_ event: String, _ payload: [String: Any]) {
        guard case .connected = state, let socket = library?.defaultSocket else { return }
        socket.emit(event, payload)
    }

    private func change(to next: TradingConnectionState) {
        guard next != state else { return }
        state = next
        callbackQueue.async { [weak self] in self?.onConnectionChange?(next) }
    }

    private func report(_ error: TradingError) {
        callbackQueue.async { [weak self] in self?.onError?(error) }
    }
}
