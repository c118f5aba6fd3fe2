// Made by the Swift package manager in a real build.
import Foundation

extension Bundle {
    static var module: Bundle { .main }
}
