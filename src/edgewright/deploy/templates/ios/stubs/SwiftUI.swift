// What the sample app uses of SwiftUI, declared for type checking where the framework is not.
import Foundation

@MainActor public protocol App {
    associatedtype Body: Scene
    var body: Body { get }
    init()
}
extension App { public static func main() {} }
public protocol Scene {}
@MainActor public protocol View {}
public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct Text: View {
    public init(_ text: String) {}
    public func font(_ font: Font) -> Text { self }
}
/// Every app that imports SwiftUI has this name in scope.
public struct Label: View {}
public enum Font: Sendable { case title, body }
public enum HorizontalAlignment: Sendable { case leading }
public struct Pair: View {}
@MainActor @resultBuilder public struct ViewBuilder {
    public static func buildBlock<V: View>(_ view: V) -> V { view }
    public static func buildBlock(_ a: Text, _ b: Text) -> Pair { Pair() }
}
public struct VStack<Content: View>: View {
    public init(alignment: HorizontalAlignment, @ViewBuilder content: () -> Content) {}
    public func padding() -> VStack { self }
    public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> VStack { self }
}
public protocol ObservableObject: AnyObject {}
@MainActor @propertyWrapper public struct StateObject<Object: ObservableObject> {
    public let wrappedValue: Object
    public init(wrappedValue: @autoclosure () -> Object) { self.wrappedValue = wrappedValue() }
}
@propertyWrapper public struct Published<Value> {
    public var wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
}
